"""Several workers on one broker: what one of them has is not run by another, and none holds what another could run."""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from collections.abc import AsyncIterator
from typing import Any

import pytest
import pytest_asyncio

from consumers import Context, Registry
from consumers.worker import Worker
from dispatcher.core.topology import work_key
from dispatcher.edges import clock
from dispatcher.services.recorder import Recorder
from schemas import PRIORITIES, WorkMessage
from schemas.events import MARK
from tests.conftest import run_services
from tests.support import Installation, eventually, finished_job

pytestmark = pytest.mark.integration

#: Places of each worker, jobs, and seconds that each takes: with all places taken all the time they need 10 s.
PLACES, JOBS, LENGTH = 10, 40, 5.0
IDEAL = JOBS * LENGTH / (2 * PLACES)


class Site:
    """A worker whose handler notes what it ran."""

    def __init__(self, installation: Installation) -> None:
        settings = installation.settings
        limited = settings.worker.model_copy(update={"concurrency": PLACES})
        registry = Registry()
        self.ran: Counter[str] = Counter()
        self.go_on = asyncio.Event()

        @registry.handler("p.sleeps")
        async def sleeps(payload: dict[str, Any], ctx: Context) -> None:
            self.ran[ctx.id] += 1
            await asyncio.sleep(LENGTH)

        @registry.handler("p.waits")
        async def waits(payload: dict[str, Any], ctx: Context) -> None:
            self.ran[ctx.id] += 1
            await self.go_on.wait()

        self.worker = Worker(settings.model_copy(update={"worker": limited}), registry, "nowhere:jobs")


@pytest_asyncio.fixture
async def place(installed: Installation) -> AsyncIterator[Installation]:
    """An installation whose queues are empty before and after."""
    queues = [installed.names.work_queue("default", priority) for priority in PRIORITIES]
    for queue in [*queues, installed.names.history]:
        installed.drain(queue)
    yield installed
    for queue in [*queues, installed.names.history]:
        installed.drain(queue)


def publish(place: Installation, job_id: str, kind: str, priority: str = "normal", **headers: Any) -> None:
    """A step in its work queue."""
    work = WorkMessage(
        app="shop", id=job_id, type=kind, lane="default", priority=priority,
        accepted_at=clock.now_ms(), payload={},
    )  # fmt: skip
    place.publish(work_key("default", priority), work.encode(), exchange=place.names.work, headers=headers or None)


async def held(worker: Worker, count: int) -> None:
    """Wait until the worker has that many steps."""
    await eventually(lambda: len(worker._held) == count, f"the worker holds {count}", every=0.02)


async def test_what_a_full_worker_holds_is_run_by_the_other(place: Installation) -> None:
    """All jobs are with the first worker when the second one comes; both work all the time from then on."""
    first, second = Site(place), Site(place)
    async with run_services(first.worker):
        for index in range(JOBS):
            publish(place, f"job-{index}", "p.sleeps", PRIORITIES[index % len(PRIORITIES)])
        await held(first.worker, JOBS)
        began = time.monotonic()
        async with run_services(second.worker):
            await eventually(
                lambda: (
                    not len(first.worker._held)
                    and not len(second.worker._held)
                    and (first.ran + second.ran).total() >= JOBS
                ),
                "all have ended",
                timeout=60,
            )
            took = time.monotonic() - began
    assert first.ran + second.ran == Counter(f"job-{index}" for index in range(JOBS))
    assert took < 1.3 * IDEAL, f"{took:.1f} s; {first.ran.total()} and {second.ran.total()} jobs"


async def test_what_a_worker_runs_is_not_run_by_the_one_that_gets_it_next(place: Installation) -> None:
    """Its connection broke, it lives: the other asks it until it has ended, and then acknowledges."""
    first, second = Site(place), Site(place)
    async with run_services(first.worker):
        publish(place, "long", "p.waits")
        await eventually(lambda: first.ran["long"], "it runs")
        await first.worker._consumer.close()
        async with run_services(second.worker):
            await held(second.worker, 1)
            (step,) = second.worker._held
            asked = second.worker._doubts._steps
            since = asked[step][0]
            await eventually(lambda: asked[step][0] > since, "it asked, and the first worker said that it has it")
            first.go_on.set()
            second.go_on.set()
            await held(first.worker, 0)
            await held(second.worker, 0)
    assert (first.ran["long"], second.ran["long"]) == (1, 0)
    assert place.depth(place.names.work_queue("default", "normal")) == 0


async def test_what_a_dead_worker_ran_is_run_by_the_one_that_gets_it_next(place: Installation) -> None:
    """Nobody says that he has it."""
    first, second = Site(place), Site(place)
    second.go_on.set()
    async with run_services(first.worker):
        publish(place, "orphan", "p.waits")
        await eventually(lambda: first.ran["orphan"], "it runs")
        await first.worker._peers.close()  # what the others see of a death
        await first.worker._consumer.close()
        async with run_services(second.worker, Recorder(place.settings)):
            await eventually(lambda: second.ran["orphan"], "the second runs it")
            await held(second.worker, 0)
        first.go_on.set()


async def test_what_a_dead_worker_told_counts_before_it_is_written(place: Installation) -> None:
    """While its events wait for a recorder, the step that came again waits too; then it is dropped."""
    site = Site(place)
    site.go_on.set()
    place.publish(place.names.history, finished_job("told", "p.waits"), exchange="")
    async with run_services(site.worker):
        publish(place, "told", "p.waits", **{"x-again": True})
        await eventually(lambda: site.worker._doubts._unrecorded, "nobody else has it")
        assert not await site.worker._peers.ask_consumer(place.names.history, MARK, 2.0, 2.0), "nobody records"
        assert site.worker._doubts._unrecorded
        site.worker._history._away_until = float("inf")  # as after an absence of MongoDB
        async with run_services(Recorder(place.settings)):
            await held(site.worker, 0)
    assert not site.ran
    assert place.depth(place.names.work_queue("default", "normal")) == 0


async def test_a_step_that_may_have_been_published_twice_is_run_once(place: Installation) -> None:
    """The second copy is marked; whoever gets it asks."""
    first, second = Site(place), Site(place)
    async with run_services(first.worker, second.worker):
        publish(place, "twice", "p.waits")
        await eventually(lambda: first.ran["twice"] + second.ran["twice"], "it runs")
        other = second if first.ran["twice"] else first
        for _ in range(4):  # the broker gives them to the two in turn
            publish(place, "twice", "p.waits", **{"x-again": True})
        await eventually(lambda: len(other.worker._doubts) == 1, "the other worker got a copy")
        first.go_on.set()
        second.go_on.set()
        await held(first.worker, 0)
        await held(second.worker, 0)
    assert (first.ran + second.ran)["twice"] == 1


async def test_a_worker_that_dies_between_giving_back_and_acknowledging_doubles_nothing(place: Installation) -> None:
    """The broker has the copy and gives the original to others too: one of the two is run."""
    first, second = Site(place), Site(place)
    second.go_on.set()
    async with run_services(first.worker):
        for index in range(PLACES + 1):
            publish(place, f"job-{index}", "p.waits")
        await held(first.worker, PLACES + 1)
        (waiting,) = first.worker._ready
        died = asyncio.Event()
        first.worker._passing_on._done = lambda _: died.set()
        async with run_services(second.worker):
            await asyncio.wait_for(died.wait(), 30)
            await first.worker._consumer.close()
            queue = place.names.work_queue("default", "normal")
            await eventually(lambda: len(second.worker._doubts) >= PLACES, "what the first one held came again")
            first.go_on.set()
            await held(first.worker, 0)
            await held(second.worker, 0)
    assert second.ran == Counter({waiting.work.id: 1})
    assert first.ran[waiting.work.id] == 0
    assert place.depth(queue) == 0
