"""Giving back what is held ready behind long jobs, where another worker could run it.

A worker holds some jobs ready besides those that it runs; without that, each short job would cost a round trip. But
what is held behind long jobs waits although another worker may have places. So a worker that has been full for a
while looks at the queues of what it holds: where nothing waits in the broker, and others consume, the others may have
places. Then it stops consuming that queue, and publishes what it holds to it anew; a place that becomes free, and that
nothing of a higher or the same priority takes, makes it consume again. (Not a nack: that would count as a crash of
every job given back.)
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Collection, Mapping

from dispatcher.edges import log
from dispatcher.edges.amqp import Consumer
from schemas import PRIORITIES

_logger = log.get("worker")

#: How long a job may be held ready while nothing ends, and the time between two looks, in seconds.
HELD = 0.5
TICK = 0.25


def rank(queue: str) -> int:
    """The rank of a work queue's priority; 0 is the highest."""
    return PRIORITIES.index(queue.rpartition(".")[2])


def outranking_nothing(may: Mapping[str, bool]) -> list[str]:
    """The queues to give back: those whose jobs others may run, and that outrank none of their lane that stays.

    A worker that gave back high jobs and kept low ones would start these in its next places.
    """
    chosen: list[str] = []
    staying: set[str] = set()
    for queue in sorted(may, key=rank, reverse=True):
        lane = queue.rpartition(".")[0]
        if may[queue] and lane not in staying:
            chosen.append(queue)
        else:
            staying.add(lane)
    return chosen


class ReadAhead:
    """Watches what one worker holds ready.

    Args:
        consumer: the worker's.
        overdue: the queues of jobs that have been held ready for longer than `HELD`.
        give_back: called with queues whose waiting jobs others may run; they are not consumed any more.
    """

    def __init__(
        self, consumer: Consumer, overdue: Callable[[], set[str]], give_back: Callable[[Collection[str]], None]
    ) -> None:
        self._consumer = consumer
        self._overdue = overdue
        self._give_back = give_back
        self._task: asyncio.Task[None] | None = None
        self._resuming: asyncio.Task[None] | None = None
        self._stopped = asyncio.Event()

    def start(self) -> None:
        """Begin to watch."""
        self._task = asyncio.create_task(self._run(), name="read-ahead")

    async def stop(self) -> None:
        """Watch no more. A question to the broker is waited for: cancelled, it would cost the consumer's channel."""
        self._stopped.set()
        tasks = [task for task in (self._task, self._resuming) if task is not None]
        await asyncio.gather(*tasks, return_exceptions=True)

    def place_free(self) -> None:
        """There is a place that nothing held ready takes: consume everything again."""
        self._resume(self._consumer.paused)

    def place_taken(self, highest: int | None) -> None:
        """A place became free and was taken; ``highest`` is the rank of the best that is held ready.

        What outranks that would have been better, and will be the next time: consume it again.
        """
        if (paused := self._consumer.paused) and highest is not None:
            self._resume([queue for queue in paused if rank(queue) < highest])

    def _resume(self, queues: Collection[str]) -> None:
        if queues and not self._stopped.is_set() and (self._resuming is None or self._resuming.done()):
            self._resuming = asyncio.create_task(self._consumer.resume(queues))

    async def _run(self) -> None:
        while not await self._stopped_within(TICK):
            try:
                if queues := self._overdue():
                    await self._look(queues)
            except Exception:
                _logger.exception("what is held ready cannot be given back")

    async def _stopped_within(self, seconds: float) -> bool:
        try:
            await asyncio.wait_for(self._stopped.wait(), seconds)
        except TimeoutError:
            return False
        return True

    async def _look(self, queues: set[str]) -> None:
        may = {queue: await self._others_may_run(queue) for queue in sorted(queues)}
        if (idle := outranking_nothing(may)) and not self._stopped.is_set():
            await self._consumer.pause(idle)
            self._give_back(idle)

    async def _others_may_run(self, queue: str) -> bool:
        counts = await self._consumer.counts(queue)
        if counts is None:
            return False
        waiting, others = counts
        return waiting == 0 and others > 0
