"""The scheduler dies at each seam of the agenda; another one goes on, and each job starts once, in time.

What it does with jobs with long delays, in this order (each step is a case below):

    what lies in ``scheduled.v1`` inserted into the collection ``scheduled``; then acknowledged
    jobs claimed; each published into the delay ladder, or to its work queue where it is due; then marked as released
    of a job that expired meanwhile, its end told to history instead; then it is marked

Schedulers die one after the other, each with a job of its own. What a dead one has claimed, the later ones claim
again once that is over, and die with it too.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from dispatcher.edges import clock
from dispatcher.services.recorder import Recorder
from dispatcher.services.scheduler import Scheduler
from schemas import Accepted, WorkMessage
from schemas.events import about, encode_batches
from tests.conftest import run_services
from tests.faults.aftermath import (
    HANDLERS,
    Stop,
    by_id,
    executed,
    history_matches,
    installed,
    left,
    outcomes,
    settled,
    statistics_match,
    stopped,
)
from tests.faults.executions import LEDGER_VARIABLE, Execution
from tests.processes import ServiceProcess
from tests.support import Installation, eventually

pytestmark = [pytest.mark.faults, pytest.mark.timeout(600)]

#: How long after its publish a job is due, in seconds: all schedulers of the test have died by then.
AHEAD = 20.0
#: Most lateness of a start, in seconds, with another scheduler there before a job is due.
LATE = 5.0


@dataclass(frozen=True)
class Case:
    """Where a scheduler dies with a job; the name is the job's id."""

    name: str
    at: str
    where: str = ""
    due_in: float = AHEAD
    expires_in: float | None = None
    #: Whether its message lies in ``scheduled.v1`` again afterwards.
    back: bool = False


CASES = [
    Case("keep-before", "unkept", back=True),
    Case("keep-after", "kept", back=True),
    Case("keep-unflushed", "unflushed", "scheduled", back=True),
    Case("claimed", "claimed"),
    Case("ladder-unwritten", "unwritten", "delays"),
    Case("ladder-written", "written", "delays"),
    Case("ladder-confirmed", "confirmed", "delays"),
    Case("ladder-unmarked", "unreleased"),
    Case("ladder-marked", "released"),
    Case("due-written", "written", "work", due_in=0.0),
    Case("due-confirmed", "confirmed", "work", due_in=0.0),
    Case("expired-written", "written", "history", expires_in=1.0),
    Case("expired-confirmed", "confirmed", "history", expires_in=1.0),
]
JOBS = {case.name: case for case in CASES}


@dataclass
class Seen:
    """What the one play of all cases left."""

    ledger: Path
    documents: dict[str, dict[str, Any]]
    scheduled: dict[str, dict[str, Any]]
    left: dict[str, int]


@pytest.fixture(scope="module")
def seen(tmp_path_factory: pytest.TempPathFactory) -> Seen:
    """A scheduler for each case that dies there, then an ordinary one; a recorder and two workers run all the time."""
    folder = tmp_path_factory.mktemp("agenda")
    with installed() as installation:
        return asyncio.run(_play(installation, folder))


async def _play(installation: Installation, folder: Path) -> Seen:
    settings, ledger = installation.settings, folder / "executions"
    env = {LEDGER_VARIABLE: str(ledger)}
    async with (
        run_services(Recorder(settings)),
        ServiceProcess(installation, "worker", HANDLERS, env=env) as one,
        ServiceProcess(installation, "worker", HANDLERS, env=env) as two,
    ):
        for case in CASES:
            await asyncio.to_thread(publish, installation, case)
            await _die(installation, folder, case)
        async with run_services(Scheduler(settings)):
            await settled(installation, "the agenda", one, two, jobs=list(JOBS))
            waiting = {"state": {"$ne": "released"}}
            await eventually(lambda: not installation.db.scheduled.count_documents(waiting), "all are released")
        await statistics_match(installation)
    return Seen(
        ledger,
        by_id(installation.db.jobs),
        by_id(installation.db.scheduled),
        left(installation),
    )


def publish(installation: Installation, case: Case) -> None:
    """What intake publishes of a job with a long delay; its acceptance is two minutes ago."""
    now = clock.now_ms()
    work = WorkMessage(
        app="shop", id=case.name, type="chaos.plain", lane="default", priority="normal", accepted_at=now - 120_000,
        payload={"ms": 0}, due_at=now + round(case.due_in * 1000),
        expires_at=None if case.expires_in is None else now + round(case.expires_in * 1000),
    )  # fmt: skip
    told = Accepted(**about(work), key_id="key", payload=work.payload, due_at=work.due_at, expires_at=work.expires_at)
    messages = [(installation.names.history, body) for body in encode_batches([told])]
    installation.publish_many([*messages, (installation.names.scheduled, work.encode())], exchange="")


async def _die(installation: Installation, folder: Path, case: Case) -> None:
    names = installation.names
    where = getattr(names, case.where) if case.where else ""
    await stopped(installation, folder / case.name, Stop(case.at, where, (case.name,)), "run", "scheduler")
    if case.back:
        await eventually(lambda: installation.depth(names.scheduled), f"{case.name}: its message is back")


def started(seen: Seen, name: str) -> Execution:
    """The one execution of a job."""
    (execution,) = executed(seen.ledger, name)
    return execution


@pytest.mark.parametrize("name", [case.name for case in CASES if case.expires_in is None])
def test_a_scheduler_dies_with_a_job(seen: Seen, name: str) -> None:
    """It starts once, not before its time and not long after it, whoever had claimed or published it."""
    document = seen.documents[name]
    assert (document["state"], outcomes(document)) == ("succeeded", ["1.1 succeeded"])
    history_matches(document, seen.ledger)
    due = document["run_at"].timestamp()
    late = started(seen, name).started - due
    # what is due already waits for the next scheduler, and for the end of a dead one's claim
    assert late >= 0
    assert JOBS[name].due_in == 0 or late < LATE, f"late by {late:.1f} s"


@pytest.mark.parametrize("name", [case.name for case in CASES if case.expires_in is not None])
def test_a_scheduler_dies_with_a_job_that_expired(seen: Seen, name: str) -> None:
    """It ends expired, once, and never starts."""
    document = seen.documents[name]
    assert (document["state"], outcomes(document)) == ("expired", [])
    assert executed(seen.ledger, name) == []


def test_nothing_else_is_left(seen: Seen) -> None:
    """No message in any queue; of each job one document, released and without its body."""
    assert seen.left == {}
    assert seen.documents.keys() == seen.scheduled.keys() == JOBS.keys()
    assert {document["state"] for document in seen.scheduled.values()} == {"released"}
    assert not any("body" in document for document in seen.scheduled.values())


def test_a_claim_was_taken_over(seen: Seen) -> None:
    """Each job whose scheduler died with its claim was claimed again, and no other."""
    again = {name for name, document in seen.scheduled.items() if document["claims"] > 1}
    held = {case.name for case in CASES if not case.back and case.at != "released"}
    assert held <= again
    assert "ladder-marked" not in again
