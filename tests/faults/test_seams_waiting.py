"""``jobs reschedule`` and ``jobs cancel`` die at each of their seams, on jobs that wait in MongoDB for their time.

What they do, in this order (each line is a set of cases below):

    jobs reschedule   the job moved in ``scheduled``; then Moved published
    jobs cancel       the tombstone written; then, when no worker starts the job any more, Moved published; then the job
                      taken out of ``scheduled``

The right outcome: once the job is moved it starts at the new time, and once the tombstone is written it never starts,
whether the command is given again or not. Given again, it puts history right. No scheduler runs until all commands are
done; then one runs, and a worker.
"""

from __future__ import annotations

import asyncio
import time
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from dispatcher.edges import clock
from dispatcher.edges.mongo import Database, ScheduledStore
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
from tests.faults.executions import LEDGER_VARIABLE
from tests.processes import Finished, ServiceProcess, invoke
from tests.support import Installation, eventually

pytestmark = [pytest.mark.faults, pytest.mark.timeout(600)]

AT_ONCE = 4
REASON = "ordered twice"
#: Seconds until the jobs are due that are cancelled, and the others after their move; and before it.
SOON, LATER = 18.0, 3_600.0
#: Seconds that a start may be late on a machine that has much else to do.
SLACK = 3.0


@dataclass(frozen=True)
class Case:
    """A command on a waiting job, and where it dies; the name is the job's id."""

    name: str
    at: str
    where: str = ""
    #: Whether the command is given again and does its work; None: not given again.
    again: bool | None = None
    #: The job's state in history, and the scheduled document's, when the commands are done.
    state: str = "scheduled"
    kept: str = "waiting"
    #: The step at last: it grows with each move.
    seq: int = 1
    #: Whether history is told of the move.
    told: bool = True


MOVES = [
    Case("move-unmoved", "unmoved", again=True, seq=2),
    Case("move-moved", "moved", again=True, seq=3),
    Case("move-alone", "moved", seq=2, told=False),
    Case("move-unwritten", "unwritten", "history", again=True, seq=3),
    Case("move-written", "written", "history", seq=2),
    Case("move-confirmed", "confirmed", "history", again=True, seq=3),
]
# what was not taken out of MongoDB a scheduler releases when it is due, and the worker ends it
CANCELS = [
    Case("cancel-before", "uncancelled", again=True, state="cancelled", kept="cancelled"),
    Case("cancel-again", "cancelled", again=True, state="cancelled", kept="cancelled"),
    Case("cancel-alone", "cancelled"),
    Case("cancel-unwritten", "unwritten", "history"),
    Case("cancel-written", "written", "history", again=False, state="cancelled"),
    Case("cancel-confirmed", "confirmed", "history", again=False, state="cancelled"),
    Case("cancel-unscheduled", "unscheduled", again=False, state="cancelled", kept="cancelled"),
]
CASES = [*MOVES, *CANCELS]


@dataclass
class Seen:
    """What the one play of all cases left: in MongoDB when the commands were done, and when everything was."""

    ledger: Path
    soon: datetime
    later: datetime
    #: When the scheduler began, in seconds since the epoch.
    began: float = 0.0
    #: Documents of jobs and scheduled ones, by id.
    told: dict[str, dict[str, Any]] = field(default_factory=dict)
    kept: dict[str, dict[str, Any]] = field(default_factory=dict)
    documents: dict[str, dict[str, Any]] = field(default_factory=dict)
    scheduled: dict[str, dict[str, Any]] = field(default_factory=dict)
    left: dict[str, int] = field(default_factory=dict)


def _date(ms: int) -> datetime:
    return datetime.fromtimestamp(ms / 1000, UTC)


@pytest.fixture(scope="module")
def seen(tmp_path_factory: pytest.TempPathFactory) -> Seen:
    """Waiting jobs, commands that die at their seams, and then a scheduler and a worker."""
    folder = tmp_path_factory.mktemp("waiting")
    with installed() as installation:
        return asyncio.run(_play(installation, folder))


async def _play(installation: Installation, folder: Path) -> Seen:
    settings, now = installation.settings, clock.now_ms()
    soon, later = (now + round(seconds * 1000) for seconds in (SOON, LATER))
    found = Seen(folder / "executions", _date(soon), _date(later))
    worker = ServiceProcess(installation, "worker", HANDLERS, env={LEDGER_VARIABLE: str(found.ledger)})
    async with run_services(Recorder(settings)):
        await _wait(installation, [(c.name, later if c in MOVES else soon) for c in CASES], now)
        few, alone = asyncio.Semaphore(AT_ONCE), asyncio.Lock()
        async with asyncio.TaskGroup() as group:
            for case in CASES:
                group.create_task(_die(installation, case, folder / case.name, found.soon, few, alone))
        found.told, found.kept = by_id(installation.db.jobs), by_id(installation.db.scheduled)
        found.began = time.time()
        async with run_services(Scheduler(settings)), worker:
            await settled(installation, "waiting jobs", worker)
        await statistics_match(installation)
    found.documents, found.scheduled = by_id(installation.db.jobs), by_id(installation.db.scheduled)
    found.left = left(installation)
    return found


async def _wait(installation: Installation, jobs: list[tuple[str, int]], now: int) -> None:
    """Jobs as intake and a scheduler would have left them, long ago, with their due times."""
    works = [
        WorkMessage(
            app="shop", id=job, type="chaos.plain", lane="default", priority="normal",
            accepted_at=now - 120_000, payload={"ms": 0}, due_at=due_at,
        )
        for job, due_at in jobs
    ]  # fmt: skip
    settings = installation.settings
    database = Database(settings.mongo.url.get_secret_value(), settings.mongo.database)
    await ScheduledStore(database).insert([(work, work.encode()) for work in works])
    database.close()
    events = [Accepted(**about(w), key_id="k", payload=w.payload, due_at=w.due_at) for w in works]
    bodies = [(installation.names.history, body) for body in encode_batches(events)]
    installation.publish_many(bodies, exchange="")
    await eventually(lambda: installation.db.jobs.count_documents({}) == len(jobs), "history has the jobs")


async def _die(
    installation: Installation, case: Case, folder: Path, soon: datetime, few: asyncio.Semaphore, alone: asyncio.Lock
) -> None:
    job = case.name
    if case in MOVES:
        command = ["jobs", "reschedule", job, "--at", soon.isoformat()]
    else:
        command = ["jobs", "cancel", job, "--reason", REASON]
    stop = Stop(case.at, installation.names.history if case.where else "", (job,) if case.where else ())
    async with few:
        await stopped(installation, folder, stop, *command)
    if case.again is False:
        await eventually(lambda: _is_told(installation, case), f"history has what {job}'s command told")
    if case.again is not None:
        async with alone:  # a command in this process has the whole process's streams
            given: Finished = await asyncio.to_thread(invoke, installation, *command)
        assert (given.code == 0) is case.again, given.err
        assert case.again or "is cancelled: only a job that has not ended" in given.err
    await eventually(lambda: _is_told(installation, case), f"history has what {job}'s command told")


def _is_told(installation: Installation, case: Case) -> bool:
    """Whether history has reached what it will say until the job's time."""
    document = installation.job(case.name) or {}
    return document["state"] == case.state and document["seq"] == (case.seq if case.told else case.seq - 1)


@pytest.mark.parametrize("case", MOVES, ids=lambda c: c.name)
def test_a_moved_job_starts_once_at_its_new_time(seen: Seen, case: Case) -> None:
    """In MongoDB and in history, but for the command that died between the two and was not given again."""
    told, kept = seen.told[case.name], seen.kept[case.name]
    due = kept["due_at"]
    assert seen.soon <= due < seen.later
    assert (kept["state"], kept["seq"], kept["claims"]) == ("waiting", case.seq, 0)
    assert told["due_at"] == told["run_at"] == (due if case.told else seen.later)
    (execution,) = executed(seen.ledger, case.name)
    assert execution.started >= due.timestamp()
    assert execution.started <= max(due.timestamp(), seen.began) + SLACK
    document = seen.documents[case.name]
    assert (document["state"], document["run"], document["seq"]) == ("succeeded", 1, case.seq)
    assert outcomes(document) == ["1.1 succeeded"]
    assert document["run_at"] == told["run_at"]
    history_matches(document, seen.ledger)
    assert (seen.scheduled[case.name]["state"], seen.scheduled[case.name]["due_at"]) == ("released", due)


@pytest.mark.parametrize("case", CANCELS, ids=lambda c: c.name)
def test_a_cancelled_job_never_starts_and_ends(seen: Seen, case: Case) -> None:
    """Whatever was done of the command: the end is there at once, or at the latest when the job would have started."""
    assert seen.kept[case.name]["state"] == case.kept
    assert executed(seen.ledger, case.name) == []
    document = seen.documents[case.name]
    assert (document["state"], document["attempts"]) == ("cancelled", [])
    assert document["error"] == {"type": "Cancelled", "message": REASON}
    assert (document["finished_at"] >= seen.soon) is (case.state != "cancelled")
    scheduled = seen.scheduled[case.name]
    assert scheduled["state"] == ("cancelled" if case.kept == "cancelled" else "released")
    assert "body" not in scheduled


def test_nothing_is_left(seen: Seen) -> None:
    """No message in any queue, and no document but the jobs'."""
    assert seen.left == {}
    assert seen.documents.keys() == seen.scheduled.keys() == {case.name for case in CASES}
