"""Intake dies at each seam of its claims; an ordinary one goes on, and no job becomes a duplicate of itself.

What it does for a job with an id or a unique key, in this order: the claim of the id made; the claim of the key made;
the work message and Accepted published; both confirmed; the claims marked done; the message acknowledged. (The last two
go on side by side.) While it is dead another message arrives: with the same id, or for a job without one with the same
key.

Without an id what comes again is another job: where the first was published, it is that one's duplicate.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from consumers import Registry
from consumers.worker import Worker
from dispatcher.core.lifecycle import FINAL
from dispatcher.services.intake import Intake
from dispatcher.services.recorder import Recorder
from tests.conftest import run_services
from tests.faults.aftermath import Stop, installed, left, outcomes, statistics_match, stopped
from tests.support import Installation, eventually

pytestmark = [pytest.mark.faults, pytest.mark.timeout(300)]


@dataclass(frozen=True)
class Case:
    """What the message has (``id``, ``key`` or ``both``), and where intake dies on it: the nth such call."""

    kind: str
    at: str
    nth: int = 1

    @property
    def back(self) -> bool:
        """Whether its message comes again for sure: claims are marked while acknowledgements are written."""
        return self.at not in ("undone", "done")

    @property
    def others(self) -> tuple[int, int]:
        """Documents beside that of the job that runs, at least and at most: what comes again without an id is one."""
        if self.kind != "key":
            return 0, 0
        published = self.at not in ("unmade", "made", "unwritten")
        return (2 if published and self.back else 1), (2 if published else 1)

    @property
    def name(self) -> str:
        """Its id, where it has one; the second message of a job without one has it with an addition."""
        return f"{self.kind}-{self.at}-{self.nth}"

    @property
    def type(self) -> str:
        """The job type, which its messages hold and no other's."""
        return f"seam.{self.name}"

    def stop(self, installation: Installation) -> Stop:
        """The seam."""
        names = installation.names
        where = {"unwritten": names.work, "written": names.work, "confirmed": names.work, "unflushed": names.intake}
        place = where.get(self.at, "")
        return Stop(self.at, place, (self.type,) if place else (), self.nth)

    def messages(self) -> tuple[dict[str, Any], dict[str, Any]]:
        """The one that intake dies on, and the one that arrives meanwhile."""
        unique = {} if self.kind == "id" else {"unique": {"key": self.name, "for": 3600}}
        first, second = ({"type": self.type, "payload": {"sent": n}, **unique} for n in (1, 2))
        if self.kind == "key":
            return first, second | {"id": f"{self.name}-other"}
        return first | {"id": self.name}, second | {"id": self.name}


#: The first call of `make` is for ids, the second for keys.
PUBLISHES = ("unwritten", "written", "confirmed", "unflushed")
CASES = [
    *(Case("id", at) for at in ("unmade", "made", "undone", "done", *PUBLISHES)),
    *(Case("key", at, 2) for at in ("unmade", "made")),
    *(Case("key", at) for at in ("undone", "done", *PUBLISHES)),
    *(Case("both", at, 2) for at in ("unmade", "made", "undone", "done")),
    *(Case("both", at) for at in ("done", *PUBLISHES)),
]

jobs = Registry()
#: What each case's handler was given, by the case's name.
executed: dict[str, Counter[int]] = {case.name: Counter() for case in CASES}


def _handler(case: Case) -> None:
    @jobs.handler(case.type)
    async def run(payload: dict[str, Any]) -> None:
        executed[case.name][payload["sent"]] += 1


for _case in CASES:
    _handler(_case)


@dataclass
class Seen:
    """A case's documents, and who has its id and its key at the end."""

    documents: list[dict[str, Any]]
    claim: dict[str, Any] | None
    key: dict[str, Any] | None


@pytest.fixture(scope="module")
def seen(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Seen]:
    """Each kind in an installation of its own, beside one another."""
    folder = tmp_path_factory.mktemp("ids")

    async def play() -> dict[str, Seen]:
        kinds = [[case for case in CASES if case.kind == kind] for kind in ("id", "key", "both")]
        found = await asyncio.gather(*(asyncio.to_thread(_in_thread, cases, folder) for cases in kinds))
        return {name: one for kind in found for name, one in kind.items()}

    return asyncio.run(play())


def _in_thread(cases: Sequence[Case], folder: Path) -> dict[str, Seen]:
    with installed() as installation:
        return asyncio.run(_play(installation, cases, folder))


async def _play(installation: Installation, cases: Sequence[Case], folder: Path) -> dict[str, Seen]:
    key, settings, db = await installation.create_key(), installation.settings, installation.db
    worker = Worker(settings, jobs, "tests.faults.test_seams_ids:jobs")
    async with run_services(Recorder(settings), worker):
        for case in cases:
            await _die(installation, case, key, folder / case.name)
        await eventually(lambda: not left(installation), "no queue holds anything", every=0.1)
        await statistics_match(installation)
    assert left(installation) == {}
    return {
        case.name: Seen(
            list(db.jobs.find({"type": case.type})),
            db.claims.find_one({"_id": f"shop:{case.name}"}),
            db.unique_keys.find_one({"_id": f"shop:{case.name}"}),
        )
        for case in cases
    }


async def _die(installation: Installation, case: Case, key: str, folder: Path) -> None:
    """An intake dies on the case's message; another message arrives; an ordinary intake takes both."""
    first, second = case.messages()
    installation.publish(case.type, first, key)
    await stopped(installation, folder, case.stop(installation), "run", "intake")
    if case.back:
        await eventually(lambda: installation.depth(installation.names.intake), f"{case.name}: its message is back")
    installation.publish(case.type, second, key)
    final = {"type": case.type, "state": {"$in": sorted(FINAL)}}
    settled = final | ({} if case.kind == "key" else {"resent": {"$gte": 1}})
    wanted = 1 + case.others[0]
    async with run_services(Intake(installation.settings)):
        await eventually(lambda: installation.db.jobs.count_documents(settled) >= wanted, f"{case.name}: all final")
        await eventually(lambda: not left(installation), f"{case.name}: nothing of it is left")


def ran(case: Case, document: dict[str, Any]) -> None:
    """It was executed once, with the first content."""
    assert (document["state"], document["run"], outcomes(document)) == ("succeeded", 1, ["1.1 succeeded"])
    assert executed[case.name] == {1: 1}


@pytest.mark.parametrize("case", [case for case in CASES if case.kind != "key"], ids=lambda c: c.name)
def test_intake_dies_on_a_job_with_an_id(seen: dict[str, Seen], case: Case) -> None:
    """One document, one execution, of the first content; of the two messages the later one alone was sent again."""
    found = seen[case.name]
    (document,) = found.documents
    ran(case, document)
    assert document["resent"] == 1
    assert found.claim is not None
    assert found.claim["done"]  # by whoever published it, or found that history knows it
    if case.kind == "both":
        assert found.key is not None
        assert found.key["job"] == case.name


@pytest.mark.parametrize("case", [case for case in CASES if case.kind == "key"], ids=lambda c: c.name)
def test_intake_dies_on_a_job_with_a_unique_key_alone(seen: dict[str, Seen], case: Case) -> None:
    """One job ran and has the key; every other is its duplicate."""
    found = seen[case.name]
    (first,) = [document for document in found.documents if document["state"] == "succeeded"]
    ran(case, first)
    others = [document for document in found.documents if document is not first]
    least, most = case.others
    assert least <= len(others) <= most
    assert {(other["state"], other["duplicate_of"]) for other in others} == {("duplicate", first["id"])}
    assert found.key is not None
    assert found.key["job"] == first["id"]
