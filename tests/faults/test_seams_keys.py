"""``keys rotate`` dies at each of its seams: nobody is locked out, the audit knows of it, and it may be given again.

What it does, in this order: the entry in the audit opened; the new key stored; the old key retired; the entry closed;
the new secret shown. Whenever it dies before that, nobody has the new secret.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from dispatcher.services.intake import Intake
from tests.conftest import run_services
from tests.faults.aftermath import Stop, stopped
from tests.integration.test_keys import create, listed, verdicts
from tests.processes import invoked
from tests.support import Installation, eventually

pytestmark = [pytest.mark.faults, pytest.mark.timeout(300)]

JOB: list[tuple[str, dict[str, Any]]] = [("mail.send", {})]
#: Grace periods of the rotation that dies and of the one that is given afterwards.
FIRST, SECOND = "1h", "24h"


@dataclass(frozen=True)
class Case:
    """Where the command dies, and what it has done then. The app is named after it."""

    at: str
    made: bool = True
    retired: bool = False
    outcome: str | None = None


CASES = [
    Case("uncreated", made=False),
    Case("created"),
    Case("retired", retired=True),
    Case("closed", retired=True, outcome="done"),
]


async def entry_of(installation: Installation, app: str) -> dict[str, Any]:
    """The latest change of an app's keys, from the audit."""
    found: list[dict[str, Any]] = (await invoked(installation, "audit", "list", "--app", app, "--json")).json
    return found[0]


@pytest.mark.parametrize("case", CASES, ids=lambda c: c.at)
async def test_a_rotation_dies(installed: Installation, tmp_path: Path, case: Case) -> None:
    """The old key is accepted all the time; a rotation given again shows a secret that works beside it."""
    app = case.at
    old = await create(installed, "--app", app)
    async with run_services(Intake(installed.settings)):
        assert await verdicts(installed, old["key"], JOB) == ["accepted"]
        await stopped(installed, tmp_path / "rotation", Stop(case.at), "keys", "rotate", old["id"], "--grace", FIRST)
        assert "jd_" not in (tmp_path / "rotation" / "log").read_text()  # nobody has the new secret
        entry = await entry_of(installed, app)
        assert (entry["action"], entry["key_id"], entry["outcome"]) == ("key.rotated", old["id"], case.outcome)
        torn = await listed(installed, app)
        lost = entry["details"]["replaced_by"]
        assert torn.keys() == {old["id"], *([lost] if case.made else [])}
        assert torn[old["id"]]["state"] == ("retiring" if case.retired else "active")
        assert torn[old["id"]]["replaced_by"] == (lost if case.retired else None)
        assert await verdicts(installed, old["key"], JOB) == ["accepted"]

        given = await invoked(installed, "keys", "rotate", old["id"], "--grace", SECOND, "--json")
        assert await verdicts(installed, given.json["key"], JOB) == ["accepted"]
        assert await verdicts(installed, old["key"], JOB) == ["accepted"]
        both = await listed(installed, app)
        assert (both[old["id"]]["state"], both[given.json["id"]]["state"]) == ("retiring", "active")
        assert both[old["id"]]["replaced_by"] == given.json["id"]
        if case.retired:  # no grace period grows
            assert both[old["id"]]["expires_at"] == torn[old["id"]]["expires_at"]
        assert (await entry_of(installed, app))["outcome"] == "done"


async def test_what_a_rotation_left_may_be_revoked(installed: Installation, tmp_path: Path) -> None:
    """The key that nobody has goes alone, where it replaced nothing; what the old one replaced lives on too."""
    first = await create(installed, "--app", "left")
    old = (await invoked(installed, "keys", "rotate", first["id"], "--json")).json
    await stopped(installed, tmp_path / "rotation", Stop("created"), "keys", "rotate", old["id"])
    lost = (await entry_of(installed, "left"))["details"]["replaced_by"]
    await invoked(installed, "keys", "revoke", lost)
    states = {key: shown["state"] for key, shown in (await listed(installed, "left")).items()}
    assert states == {first["id"]: "retiring", old["id"]: "active", lost: "revoked"}
    async with run_services(Intake(installed.settings)):
        for key in (first, old):
            assert await verdicts(installed, key["key"], JOB) == ["accepted"]
        given = (await invoked(installed, "keys", "rotate", old["id"], "--grace", "1s", "--json")).json

        async def over() -> bool:
            return await verdicts(installed, old["key"], JOB) == ["expired_key"]

        await eventually(over, "the grace period is over", timeout=20)
        assert await verdicts(installed, given["key"], JOB) == ["accepted"]
