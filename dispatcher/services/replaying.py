"""New runs of many jobs at once: of parked messages, by one rotation through their queue, or from history in batches.

What is killed in the middle can be done again: a job that runs again already is known by its run in history. Only
what was published in the last moment before may then run twice.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from dataclasses import dataclass, field, replace
from functools import partial

from dispatcher.core.filters import JobFilter
from dispatcher.core.history import Document, document_id
from dispatcher.core.lifecycle import PARKED, RERUNNABLE
from dispatcher.core.outcome import new_run
from dispatcher.edges.amqp import Outgoing, Rotated, rotate
from dispatcher.services.operations import OperationError, Operations, Step, parked_work, work_of
from schemas import JobState, WorkMessage

#: Bytes of parked messages that are held at a time, as far as the limit of a job's size tells.
WINDOW_BYTES = 64 << 20
#: Jobs of history that are published together.
BATCH = 250
#: States whose jobs are run again where no state is named: what succeeded is not meant by chance.
USUAL = frozenset(RERUNNABLE - {JobState.SUCCEEDED})


@dataclass(slots=True)
class Bulk:
    """What was done to many jobs: so many started; the others were looked at and left, or were left over."""

    started: int = 0
    looked_at: int = 0
    left_over: int = 0
    impossible: int = 0
    stopped: bool = False
    by_lane: dict[str, int] = field(default_factory=dict)


Progress = Callable[[int, int, int], None]
"""Called with how many were looked at, of how many, and how many were started."""


async def replay_matching(
    operations: Operations, where: JobFilter, limit: int | None, stop: Callable[[], bool], progress: Progress
) -> Bulk:
    """Start a new run of every parked job that the filter covers, at most ``limit``; ``stop`` ends it early.

    Raises:
        OperationError: there is no such lane.
        BrokerError: the broker was lost. What was not started is still parked.
    """
    bulk = Bulk()
    for lane in operations.lanes_of(where):
        plan = _Plan(operations, where, None if limit is None else limit - bulk.started, stop)
        queue, window = operations.names.parked(lane), max(WINDOW_BYTES // operations.max_body_bytes, 1)
        before, started = bulk.looked_at, bulk.started

        def tell(state: Rotated, before: int = before, started: int = started) -> None:
            progress(before + state.looked_at, before + state.total, started + state.replaced)

        done = await rotate(operations.url, queue, operations.publisher, plan, window=min(window, BATCH), progress=tell)
        bulk.looked_at += done.looked_at
        bulk.started += done.replaced
        bulk.left_over += done.dropped
        bulk.impossible += done.unroutable
        if done.replaced:
            bulk.by_lane[lane] = done.replaced
        if plan.enough():
            break
    bulk.stopped = stop()
    return bulk


class _Plan:
    """Which parked messages become first steps of a new run: what the filter covers and history calls dead."""

    def __init__(self, operations: Operations, where: JobFilter, limit: int | None, stop: Callable[[], bool]) -> None:
        self._operations = operations
        self._where = where
        self._limit = limit
        self._stop = stop
        self._taken: set[int] = set()
        self._steps: list[Step | None] = []

    def enough(self) -> bool:
        """Whether it is to stop, or has as many as were asked for."""
        return self._stop() or (self._limit is not None and len(self._taken) >= self._limit)

    async def choose(self, bodies: Sequence[bytes]) -> Sequence[Outgoing | bool]:
        """See `rotate`. History is asked once for all of them."""
        works = [parked_work(body) for body in bodies]
        covered = [work if work is not None and self._where.covers(work) else None for work in works]
        places = await self._operations.jobs.places([document_id(*work.key) for work in covered if work is not None])
        self._steps = [None] * len(bodies)
        return [self._choice(i, work, places) for i, work in enumerate(covered)]

    def _choice(self, at: int, work: WorkMessage | None, places: dict[str, tuple[int, int, str]]) -> Outgoing | bool:
        if work is None:
            return True
        run, _, state = places.get(document_id(*work.key), (work.run, 0, str(JobState.FAILED)))
        taken = hash((work.key, work.run))
        if run > work.run or taken in self._taken:
            return False  # left over from an earlier run, or a second copy
        if JobState(state) not in PARKED or self.enough():
            return True
        self._taken.add(taken)
        self._steps[at] = step = self._operations.step(new_run(work), "replay")
        return step.message

    def follow(self, replaced: Sequence[int]) -> Sequence[Outgoing]:
        """The events of the runs that were started."""
        return self._operations.told([step for i in replaced if (step := self._steps[i]) is not None])


async def retry_matching(
    operations: Operations, where: JobFilter, limit: int | None, stop: Callable[[], bool], progress: Progress
) -> Bulk:
    """Start a new run of every finished job of history that the filter finds, at most ``limit``.

    Raises:
        OperationError: a state is named from which no job runs again.
        MongoError: the database was lost. What was not started is as it was.
    """
    where = retryable(where)
    found = operations.jobs.scan(where, without=("attempts",))
    total = await operations.jobs.count(where)
    return await in_batches(found, total, partial(_retry, operations), limit, stop, progress)


async def in_batches(
    found: AsyncIterator[Document],
    total: int,
    work: Callable[[Sequence[Document], Bulk], Awaitable[None]],
    limit: int | None,
    stop: Callable[[], bool],
    progress: Progress,
) -> Bulk:
    """Do the work for the jobs found, so many at a time, until ``limit`` are started or it is to stop.

    Args:
        found: the documents.
        total: how many they are, for progress.
        work: does a batch, and counts in the bulk what came of it.
    """
    bulk, batch = Bulk(), list[Document]()
    async for doc in found:
        if stop() or (limit is not None and bulk.started + len(batch) >= limit):
            break
        batch.append(doc)
        if len(batch) == BATCH:
            await work(batch, bulk)
            progress(bulk.looked_at, total, bulk.started)
            batch = []
    await work(batch, bulk)
    progress(bulk.looked_at, total, bulk.started)
    bulk.stopped = stop()
    return bulk


def retryable(where: JobFilter) -> JobFilter:
    """The filter with states whose jobs can run again.

    Raises:
        OperationError: it names another.
    """
    wrong = sorted(set(where.states) - {str(state) for state in RERUNNABLE})
    if wrong:
        raise OperationError(f"jobs in state {wrong[0]} cannot be retried: only finished ones that have run")
    return replace(where, states=where.states or tuple(sorted(str(state) for state in USUAL)))


async def _retry(operations: Operations, batch: Sequence[Document], bulk: Bulk) -> None:
    steps = [
        operations.step(new_run(work_of(doc)), "retry") for doc in batch if "payload" in doc and not doc.get("redacted")
    ]
    returned = await operations.publisher.publish([step.message for step in steps])
    started = [step for i, step in enumerate(steps) if i not in set(returned)]
    await operations.publisher.publish(operations.told(started))
    bulk.looked_at += len(batch)
    bulk.started += len(started)
    bulk.impossible += len(batch) - len(started)
    for step in started:
        bulk.by_lane[step.work.lane] = bulk.by_lane.get(step.work.lane, 0) + 1
