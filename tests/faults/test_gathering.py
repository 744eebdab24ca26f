"""`make groups` in short: thousands of members while dispatchers are killed and frozen; each is in one batch."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from tests.faults import gathering
from tests.faults.gathering import Account, Plan, judge
from tests.support import Installation

pytestmark = [pytest.mark.faults, pytest.mark.timeout(300)]

#: Nobody is frozen in it, which would take long; see test_seams_groups.
SEED = 19


@pytest.mark.long
async def test_members_are_in_one_batch_each_whatever_is_killed(
    installed: Installation, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """None is lost, none runs twice, those that fail are retried alone; in the quiet no group is late."""
    account = await gathering.run(
        Plan(8_000, 80, gap=0.7, seed=SEED, faults=3, late=5_000), None, installed, tmp_path, lambda _: None
    )
    wrong = judge(account)
    shown = gathering.show(account, wrong)
    with capsys.disabled():
        print(f"\n{shown}")
    assert not wrong, shown
    assert account.faults["dispatcher killed"] >= 3


def a_document(name: str, **fields: Any) -> dict[str, Any]:
    """A member that ran."""
    attempt = {"n": 1, "outcome": "succeeded", "execution": f"e-{name}", "batch": "b"}
    return {"id": name, "state": "succeeded", "payload": {}, "batch": "b", "attempts": [attempt]} | fields


def an_account(documents: list[dict[str, Any]], calls: list[dict[str, Any]], **fields: Any) -> Account:
    """Of these documents."""
    names = {document["id"] for document in documents}
    return Account(Plan(), names, documents, calls, {}, Counter(), 1.0, **fields)


def test_each_check_fires() -> None:
    """What does not fit is found, and named."""
    fine = [a_document("1"), a_document("2")]
    call = {"batch": "b", "executions": [["1", "e-1"], ["2", "e-2"]]}
    assert judge(an_account(fine, [call])) == {}
    lost = an_account(fine, [call])
    lost.acknowledged.add("3")
    assert set(judge(lost)) == {"lost"}
    left = an_account(fine, [call])
    left.left["group.v1.3"] = 1
    assert set(judge(left)) == {"left over"}
    assert set(judge(an_account([a_document("1", state="failed"), fine[1]], [call]))) == {"not final"}
    assert set(judge(an_account([a_document("1", payload={"fails": True}), fine[1]], [call]))) == {"wrong attempts"}
    unbatched = {key: value for key, value in fine[0].items() if key != "batch"}
    assert set(judge(an_account([unbatched, fine[1]], [call]))) == {"without a batch"}
    twice = {"batch": "c", "executions": [["1", "e-3"]]}
    assert set(judge(an_account(fine, [call, twice]))) == {"executed twice", "unknown to history"}
    assert set(judge(an_account(fine, [call, call]))) == {"executed twice", "batch run twice"}
    never = {"batch": "b", "executions": [["1", "e-1"]]}
    assert set(judge(an_account(fine, [never]))) == {"never executed"}
    assert set(judge(an_account(fine, [call], late_ms=[101.0]))) == {"late in the quiet"}
