"""The dispatcher that gathers a group dies, or stands still; another goes on, and each member runs once.

What it publishes, and what it acknowledges then:

    the batch, then Moved of each member                       the members

A death before the batch is with the broker leaves nothing of it; one after that leaves a second batch, marked, of which
the worker drops every member.
"""

from __future__ import annotations

import asyncio
import os
import signal
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from prometheus_client.parser import text_string_to_metric_families

from consumers import BatchContext, Registry
from consumers.worker import Worker
from dispatcher.core.grouping import partition_of
from dispatcher.core.lifecycle import FINAL
from dispatcher.services.intake import Intake
from dispatcher.services.recorder import Recorder
from schemas import GroupSpec, read_steps
from tests.conftest import run_services
from tests.faults.aftermath import Stop, installed, left, outcomes, statistics_match, stopped
from tests.processes import ServiceProcess
from tests.support import Installation, eventually
from tests.unit.samples import make_work

pytestmark = [pytest.mark.faults, pytest.mark.timeout(300)]

SIZE = 3
HEARTBEAT = 5


@dataclass(frozen=True)
class Case:
    """Where the dispatcher dies on a batch, and how many batches with its members are published in all."""

    name: str
    at: str
    where: str
    batches: int = 2

    @property
    def type(self) -> str:
        """The job type, which is also what its messages hold and no other's."""
        return f"seam.{self.name}"

    @property
    def group(self) -> dict[str, Any]:
        """Complete with its last member."""
        return {"key": self.name, "max_size": SIZE, "max_wait": 60.0}


CASES = [
    Case("unwritten", "unwritten", "work", batches=1),
    Case("split", "written", "work"),
    Case("written", "written", "history"),
    Case("confirmed", "confirmed", "work"),
    Case("unflushed", "unflushed", "group"),
]

jobs = Registry()
#: How often each member's handler was started, by id, and the batches that ran, by job type.
executed: Counter[str] = Counter()
ran: Counter[str] = Counter()


def _handler(job_type: str) -> None:
    @jobs.handler(job_type)
    async def run(payloads: list[dict[str, Any]], ctx: BatchContext) -> None:
        executed.update(member.id for member in ctx.members)
        ran[job_type] += 1


for _name in (*(case.type for case in CASES), "still", "moved"):
    _handler(_name)


def queue_of(installation: Installation, job_type: str, key: str) -> str:
    """Where the members of a group wait."""
    partition = partition_of(make_work(app="shop", type=job_type, group=GroupSpec(key=key)))
    assert partition is not None
    return installation.names.group(partition)


@pytest.fixture(scope="module")
def seen(tmp_path_factory: pytest.TempPathFactory) -> dict[str, tuple[int, list[dict[str, Any]]]]:
    """By case: the batches that were published, and the documents of its members."""
    folder = tmp_path_factory.mktemp("groups")
    with installed() as installation:
        return asyncio.run(_play(installation, folder))


async def _play(installation: Installation, folder: Path) -> dict[str, tuple[int, list[dict[str, Any]]]]:
    key, settings, names = await installation.create_key(), installation.settings, installation.names
    work = names.work_queue("default", "normal")
    for case in CASES:
        before = installation.depth(work)
        await _die(installation, case, key, folder / case.name)
        async with run_services(Intake(settings)):
            wanted = before + case.batches
            await eventually(lambda: installation.depth(work) == wanted, f"{case.name}: its batch is published")  # noqa: B023
    messages = installation.drain(work)
    batches = Counter(read_steps(body)[0].type for _, body in messages)
    assert sum("x-again" in headers for headers, _ in messages) == len(CASES)
    for headers, body in messages:
        installation.publish_many([("default.normal", body)], exchange=names.work, headers=headers)
    worker = Worker(settings, jobs, "tests.faults.test_seams_groups:jobs")
    async with run_services(Recorder(settings), worker):
        query = {"state": {"$in": sorted(FINAL)}}
        await eventually(lambda: installation.db.jobs.count_documents(query) == SIZE * len(CASES), "all final")
        await eventually(lambda: not left(installation), "no queue holds anything", every=0.1)
        await eventually(lambda: not len(worker._held), "nothing is in doubt", every=0.1)
        await statistics_match(installation)
    return {case.name: (batches[case.type], list(installation.db.jobs.find({"type": case.type}))) for case in CASES}


async def _die(installation: Installation, case: Case, key: str, folder: Path) -> None:
    """A dispatcher dies on the case's batch; its members are back."""
    queue = queue_of(installation, case.type, case.name)
    bodies: Sequence[tuple[str, dict[str, Any]]] = [
        (case.type, {"payload": {"of": case.type}, "group": case.group}) for _ in range(SIZE)
    ]
    installation.publish_many(bodies, key)
    where = queue if case.where == "group" else getattr(installation.names, case.where)
    # an event before these is Accepted of a member
    holding = (case.type, '"moved"') if case.where == "history" else (case.type,)
    await stopped(installation, folder, Stop(case.at, where, holding), "run", "intake")
    await eventually(lambda: installation.depth(queue) == SIZE, f"{case.name}: its members are back")


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_a_dispatcher_dies_on_a_batch(seen: dict[str, tuple[int, list[dict[str, Any]]]], case: Case) -> None:
    """Whatever it left, each member runs once, all of them in one batch."""
    batches, documents = seen[case.name]
    assert batches == case.batches
    assert len(documents) == SIZE
    for document in documents:
        assert (document["state"], outcomes(document)) == ("succeeded", ["1.1 succeeded"])
        assert executed[document["id"]] == 1
    assert len({document["attempts"][0]["batch"] for document in documents}) == 1
    assert ran[case.type] == 1


async def _holds(process: ServiceProcess) -> int:
    """How many members a dispatcher holds."""
    _, text = await process.get("/metrics")
    gauges = {family.name: family.samples[0].value for family in text_string_to_metric_families(text) if family.samples}
    return int(gauges["dispatcher_group_members_held"])


async def _members(installation: Installation, key: str, job_type: str, count: int, wait: float) -> None:
    group = {"key": job_type, "max_size": 1_000, "max_wait": wait}
    await asyncio.to_thread(installation.publish_many, [(job_type, {"group": group})] * count, key)


async def test_a_group_goes_over_to_another_dispatcher_whole(installed: Installation) -> None:
    """Its owner is killed while it gathers; what it had is one batch, although it is late.

    What comes later joins it, or, where the other dispatcher was faster, is the next batch.
    """
    key = await installed.create_key()
    worker = Worker(installed.settings, jobs, "tests.faults.test_seams_groups:jobs")
    async with run_services(Recorder(installed.settings), worker), ServiceProcess(installed, "run", "intake") as first:
        await first.ready()
        await _members(installed, key, "moved", 40, 3.0)
        await eventually(lambda: _at(first, 40), "it holds them", every=0.05)
        async with ServiceProcess(installed, "run", "intake") as second:
            await second.ready()
            os.kill(first.process.pid, signal.SIGSTOP)  # so that its time is over when the other gets them
            await asyncio.sleep(3.0)
            first.process.kill()
            await _members(installed, key, "moved", 10, 3.0)
            await _succeeded(installed, "moved", 50)
    batches = [document["batch"] for document in installed.db.jobs.find({"type": "moved"}).sort("accepted_at")]
    assert len(set(batches[:40])) == 1
    assert ran["moved"] == len(set(batches)) <= 2


async def _at(process: ServiceProcess, count: int) -> bool:
    return await _holds(process) == count


async def _succeeded(installation: Installation, job_type: str, count: int) -> None:
    query = {"type": job_type, "state": "succeeded"}
    await eventually(lambda: installation.db.jobs.count_documents(query) == count, f"all {count} succeeded")


async def test_a_dispatcher_that_stood_still_flushes_nothing(installed: Installation) -> None:
    """It wakes when another has its partition, and the wait of what it believes to hold is over: nothing runs twice."""
    key, env = await installed.create_key(), {"DISPATCHER_AMQP__HEARTBEAT": str(HEARTBEAT)}
    worker = Worker(installed.settings, jobs, "tests.faults.test_seams_groups:jobs")
    async with (
        run_services(Recorder(installed.settings), worker),
        ServiceProcess(installed, "run", "intake", env=env) as first,
        ServiceProcess(installed, "run", "intake", env=env) as second,
    ):
        await asyncio.gather(first.ready(), second.ready())
        await _members(installed, key, "still", 20, 2.0)
        await eventually(lambda: _one_holds(20, first, second), "one of them holds all", every=0.05)
        owner, other = (first, second) if await _holds(first) else (second, first)
        os.kill(owner.process.pid, signal.SIGSTOP)
        try:
            await _succeeded(installed, "still", 20)
        finally:
            os.kill(owner.process.pid, signal.SIGCONT)
        await owner.logged("connection dropped")
        began = time.monotonic()
        await owner.ready()
        assert time.monotonic() - began < 30
        assert await _holds(owner) == await _holds(other) == 0
        await eventually(lambda: not left(installed), "no queue holds anything", every=0.1)
        await eventually(lambda: not len(worker._held), "nothing is in doubt", every=0.1)
    documents = list(installed.db.jobs.find({"type": "still"}))
    assert len(documents) == 20
    assert {outcome for document in documents for outcome in outcomes(document)} == {"1.1 succeeded"}
    assert {executed[document["id"]] for document in documents} == {1}
    assert ran["still"] == 1


async def _one_holds(count: int, *processes: ServiceProcess) -> bool:
    return count in [await _holds(process) for process in processes]
