"""Priorities on a real broker with several workers: what starts next, and that the lowest always progresses."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

import pytest

from consumers import Registry
from consumers.steps import Step
from consumers.worker import Worker
from dispatcher.core.selection import AGED_EVERY, ReadyJobs
from schemas import PRIORITIES
from tests.conftest import Running, make_settings
from tests.support import Installation, eventually
from tests.unit.samples import make_work

pytestmark = pytest.mark.integration

WORKERS, PLACES, HELD = 3, 2, 20
TYPE = "p.short"
LOWER = {"low", "background"}


@dataclass(frozen=True)
class Start:
    """A step that was taken from those held ready, and the rank of the best that was."""

    id: str
    priority: str
    best: int

    @property
    def passed_over(self) -> bool:
        """Whether something higher was held ready too."""
        return PRIORITIES.index(self.priority) > self.best


@dataclass(eq=False)
class Logged(ReadyJobs[Step]):
    """What a worker holds ready, with a log of what it takes; `arrived`: how many starts there had been by then."""

    starts: list[Start] = field(default_factory=list)
    arrived: dict[str, int] = field(default_factory=dict)

    def __post_init__(self) -> None:
        super().__init__()

    def push(self, priority: str, item: Step) -> None:
        """A step arrived."""
        self.arrived[item.work.id] = len(self.starts)
        super().push(priority, item)

    def pop(self) -> Step:
        """A step starts."""
        best = self.highest
        step = super().pop()
        assert best is not None
        self.starts.append(Start(step.work.id, step.work.priority, best))
        return step


class Load:
    """Some workers, and what they start."""

    def __init__(self, installation: Installation) -> None:
        self._installation = installation
        self.logs = [Logged() for _ in range(WORKERS)]
        self.done: set[str] = set()
        self.workers = [self._worker(log) for log in self.logs]

    def _worker(self, log: Logged) -> Worker:
        registry = Registry()

        @registry.handler(TYPE)
        async def short(payload: dict[str, Any]) -> None:
            await asyncio.sleep(0.02)
            self.done.add(payload["id"])

        worker = Worker(self._installation.settings, registry, "unused:unused")
        worker._ready = log
        return worker

    async def publish(self, priority: str, ids: Sequence[str]) -> None:
        """Straight to the work queue."""
        made = [make_work(id=i, type=TYPE, priority=priority, payload={"id": i}).encode() for i in ids]
        queue = self._installation.names.work_queue("default", priority)
        await asyncio.to_thread(self._installation.publish_many, [(queue, body) for body in made], exchange="")

    @property
    def started(self) -> int:
        """How many steps the workers took."""
        return sum(len(log.starts) for log in self.logs)


@asynccontextmanager
async def loaded(running: Running, background: int, low: int) -> AsyncIterator[Load]:
    """Workers amid a backlog of lower jobs."""
    installation = Installation(
        make_settings(
            DISPATCHER_WORKER__CONCURRENCY=str(PLACES),
            DISPATCHER_WORKER__READ_AHEAD=str(HELD),
            DISPATCHER_LANES='["default"]',
        )
    )
    await asyncio.to_thread(installation.apply)
    load = Load(installation)
    try:
        await load.publish("background", [f"background-{n}" for n in range(background)])
        await load.publish("low", [f"low-{n}" for n in range(low)])
        async with running(*load.workers):
            await eventually(lambda: load.started > 100, "the workers are busy with the backlog")
            yield load
    finally:
        await asyncio.to_thread(installation.remove)


def one_in_ten(load: Load) -> bool:
    """Whether of each ten starts in a row of a worker at most one passed something higher over."""
    return all(
        later - earlier >= AGED_EVERY
        for log in load.logs
        for earlier, later in itertools.pairwise(place for place, s in enumerate(log.starts) if s.passed_over)
    )


async def test_a_higher_job_starts_in_the_next_place_of_its_worker(running: Running) -> None:
    """Thousands of lower jobs wait; one after the other higher ones come, and each starts before them.

    At most one lower start comes in between: that one in ten, which passed low jobs owe to background ones.
    """
    async with loaded(running, 1_800, 800) as load:
        ids = [f"{('critical', 'high')[n % 2]}-{n}" for n in range(24)]
        for job in ids:
            await load.publish(job.partition("-")[0], [job])
            await eventually(lambda job=job: job in load.done, f"{job} ran")  # type: ignore[misc]
        before = []
        for log in load.logs:
            places = {start.id: place for place, start in enumerate(log.starts)}
            before += [places[job] - log.arrived[job] for job in ids if job in places]
        assert len(before) == len(ids)
        assert set(before) <= {0, 1}
        assert before.count(0) > before.count(1)
        assert one_in_ten(load)
        assert len(load.done) < 2_600, "lower jobs waited all the time"


async def test_of_a_flood_one_start_in_ten_is_left_to_lower_jobs(running: Running) -> None:
    """No more than that, so that the flood is over soon; and no less, so that the lowest progresses."""
    async with loaded(running, 1_800, 800) as load:
        flood = {f"high-{n}" for n in range(450)}
        await load.publish("high", sorted(flood))
        await eventually(lambda: flood <= load.done, "the flood is over")
        assert one_in_ten(load)
        for log in load.logs:
            amid = [start for start in log.starts if start.best == PRIORITIES.index("high")]
            lower = [start for start in amid if start.passed_over]
            assert len(amid) > 50, "every worker takes its part"
            # no more than one in ten is what one_in_ten says: high jobs wait with interruptions
            assert len(lower) >= len(amid) // AGED_EVERY // 2
        # of the lower ones the longest waiting goes, whatever its priority
        aged = {start.priority for log in load.logs for start in log.starts if start.passed_over}
        assert aged <= LOWER
        assert "background" in aged
