"""A scheduler dies at each seam of the agenda; another goes on, and each job starts once and in time.

What a scheduler does with a job that has a long delay, in this order (each line is a set of cases below):

    inserted into ``scheduled``; then the message of ``scheduled.v1`` acknowledged
    claimed, with others, when its time is near; published into the delay ladder; marked as released

Each case but those of the first line has a collection of its own, in a database where no other scheduler looks: so all
of them can die beside one another. Broker, worker and history are the same for all. Every case has two jobs in one
batch: "written" is a death between the two.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterator
from contextlib import AsyncExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from dispatcher.edges import clock
from dispatcher.edges.mongo import Database, ScheduledStore
from dispatcher.edges.mongo.scheduled import LEASE
from dispatcher.services.agenda import TICK
from dispatcher.services.recorder import Recorder
from dispatcher.services.scheduler import Scheduler
from schemas import Accepted, WorkMessage
from schemas.events import about, encode_batches
from tests.conftest import make_settings, run_services
from tests.faults.aftermath import (
    HANDLERS,
    Stop,
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
from tests.processes import ServiceProcess
from tests.support import Installation, eventually

pytestmark = [pytest.mark.faults, pytest.mark.timeout(600)]

#: Seconds until the jobs are due: they are not claimed at once, and after a death another has time for them.
AHEAD = 24.0
#: Seconds that a start may be late on a machine that has much else to do.
SLACK = 3.0


@dataclass(frozen=True)
class Case:
    """Where a scheduler dies. The first of its jobs is the one that a message's seam is about."""

    name: str
    at: str
    where: str = ""
    #: How often its jobs are claimed in the end.
    claims: int = 2

    @property
    def jobs(self) -> tuple[str, str]:
        """Ids."""
        return f"{self.name}-a", f"{self.name}-b"

    @property
    def stop(self) -> tuple[str, tuple[str, ...]]:
        """What the message of the seam holds, where it is about one."""
        return self.where, self.jobs[:1] if self.where else ()


KEEPS = [Case("kept", "kept", claims=1), Case("unflushed", "unflushed", "scheduled", claims=1)]
RELEASES = [
    Case("claimed", "claimed"),
    Case("unwritten", "unwritten", "delays"),
    Case("written", "written", "delays"),
    Case("confirmed", "confirmed", "delays"),
    Case("released", "released", claims=1),
]
CASES = [*KEEPS, *RELEASES]


@dataclass
class Seen:
    """What the one play of all cases left: due times and deaths in seconds since the epoch."""

    ledger: Path
    due: dict[str, float] = field(default_factory=dict)
    died: dict[str, float] = field(default_factory=dict)
    documents: dict[str, dict[str, Any]] = field(default_factory=dict)
    scheduled: list[dict[str, Any]] = field(default_factory=list)
    left: dict[str, int] = field(default_factory=dict)

    def works(self, case: Case) -> list[WorkMessage]:
        """A case's jobs as intake would have published them, long ago; the first is due a little earlier."""
        now = clock.now_ms()
        works = [
            WorkMessage(
                app="shop", id=job, type="chaos.plain", lane="default", priority="normal",
                accepted_at=now - 120_000, payload={"ms": 0}, due_at=now + round(AHEAD * 1000) + n,
            )
            for n, job in enumerate(case.jobs)
        ]  # fmt: skip
        self.due |= {work.id: (work.due_at or 0) / 1000 for work in works}
        return works


@pytest.fixture(scope="module")
def seen(tmp_path_factory: pytest.TempPathFactory) -> Seen:
    """Every scheduler dies at its seam, an ordinary one takes its place, and everything is looked at."""
    folder = tmp_path_factory.mktemp("agenda")
    with installed() as installation:
        return asyncio.run(_play(installation, folder))


async def _play(installation: Installation, folder: Path) -> Seen:
    found = Seen(folder / "executions")
    env = {LEDGER_VARIABLE: str(found.ledger)}
    # one alone would see for itself that it gets a job twice
    workers = [ServiceProcess(installation, "worker", HANDLERS, env=env) for _ in range(2)]
    async with run_services(Recorder(installation.settings)), workers[0], workers[1], AsyncExitStack() as others:
        for case in KEEPS:
            await _keep(installation, folder, case, found)
        await others.enter_async_context(run_services(Scheduler(installation.settings)))
        # before there are others that would take them from their queue
        await eventually(lambda: installation.db.scheduled.count_documents({}) == 2 * len(KEEPS), "they are kept")
        apart = {case: others.enter_context(_apart(installation, case.name)) for case in RELEASES}
        async with asyncio.TaskGroup() as group:
            for case, own in apart.items():
                group.create_task(_release(own, folder, case, found, others))
        await settled(installation, "agenda", *workers, jobs=[job for case in CASES for job in case.jobs])
        await statistics_match(installation)
        found.documents = {document["id"]: document for document in installation.db.jobs.find()}
        found.scheduled = [doc for place in (installation, *apart.values()) for doc in place.db.scheduled.find()]
        found.left = left(installation)
    return found


@contextmanager
def _apart(installation: Installation, name: str) -> Iterator[Installation]:
    """The same installation with another database, in which schedulers find only what is put there."""
    environment = installation.environment()
    own = {n: environment[n] for n in ("DISPATCHER_AMQP__PREFIX", "DISPATCHER_LANES")}
    database = f"{environment['DISPATCHER_MONGO__DATABASE']}_{name}"
    other = Installation(make_settings(**own, DISPATCHER_MONGO__DATABASE=database))
    try:
        yield other
    finally:
        other.mongo.drop_database(database)
        other.mongo.close()


def _tell(installation: Installation, works: list[WorkMessage], and_keep: bool) -> None:
    """What intake publishes of these jobs: the event, and perhaps the message."""
    events = [Accepted(**about(w), key_id="k", payload=w.payload, due_at=w.due_at) for w in works]
    messages = [(installation.names.history, body) for body in encode_batches(events)]
    kept = [(installation.names.scheduled, work.encode()) for work in works] if and_keep else []
    installation.publish_many([*messages, *kept], exchange="")


async def _keep(installation: Installation, folder: Path, case: Case, found: Seen) -> None:
    """A scheduler dies when it has inserted what is in the queue, which comes back."""
    _tell(installation, found.works(case), and_keep=True)
    await _die(installation, folder, case, found)
    queue = installation.names.scheduled
    await eventually(lambda: installation.depth(queue) >= len(case.jobs), "the messages are back")


async def _release(own: Installation, folder: Path, case: Case, found: Seen, others: AsyncExitStack) -> None:
    """A scheduler dies when its case's jobs are near due, and another one begins."""
    works = found.works(case)
    database = Database(own.settings.mongo.url.get_secret_value(), own.settings.mongo.database)
    await ScheduledStore(database).insert([(work, work.encode()) for work in works])
    database.close()
    _tell(own, works, and_keep=False)
    await _die(own, folder, case, found)
    await others.enter_async_context(run_services(Scheduler(own.settings)))


async def _die(installation: Installation, folder: Path, case: Case, found: Seen) -> None:
    where, holding = case.stop
    stop = Stop(case.at, getattr(installation.names, where) if where else "", holding)
    await stopped(installation, folder / case.name, stop, "run", "scheduler")
    found.died[case.name] = time.time()


@pytest.mark.parametrize("case", CASES, ids=lambda c: c.name)
def test_each_job_starts_once_and_in_time(seen: Seen, case: Case) -> None:
    """Not before it is due and not later: a claim is made so long before that another scheduler has time for it."""
    for job in case.jobs:
        (execution,) = executed(seen.ledger, job)
        assert 0 <= execution.started - seen.due[job] < SLACK
        assert seen.died[case.name] < seen.due[job] - LEASE - TICK


@pytest.mark.parametrize("case", CASES, ids=lambda c: c.name)
def test_history_is_right(seen: Seen, case: Case) -> None:
    """One attempt, which succeeded; the time for which it asked, and how long it waited after that."""
    for job in case.jobs:
        document = seen.documents[job]
        assert (document["state"], document["run"], document["seq"]) == ("succeeded", 1, 1)
        assert outcomes(document) == ["1.1 succeeded"]
        assert document["run_at"].timestamp() == seen.due[job]
        started = document["attempts"][0]["started_at"].timestamp()
        assert document["wait_ms"] == round((started - seen.due[job]) * 1000)
        history_matches(document, seen.ledger)


@pytest.mark.parametrize("case", CASES, ids=lambda c: c.name)
def test_it_is_there_once(seen: Seen, case: Case) -> None:
    """One document among the scheduled, released, without its body, claimed as often as the seam has it."""
    for job in case.jobs:
        (kept,) = [doc for doc in seen.scheduled if doc["id"] == job]
        assert (kept["state"], kept["claims"]) == ("released", case.claims)
        assert not {"body", "claim", "claimed_at"} & kept.keys()


def test_nothing_is_left(seen: Seen) -> None:
    """No message in any queue, and no document but those."""
    assert seen.left == {}
    names = {job for case in CASES for job in case.jobs}
    assert seen.documents.keys() == {doc["id"] for doc in seen.scheduled} == names
