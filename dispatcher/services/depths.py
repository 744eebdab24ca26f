"""What waits where, for metrics: the broker's queues and the oldest job of each lane and priority, every few seconds.

What cannot be asked has no value: an old number would look like one that does not change.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping

from config import Settings
from dispatcher.core import ladder
from dispatcher.core.topology import Names, build
from dispatcher.edges import clock, log, metrics
from dispatcher.edges.amqp import BrokerError, Count, QueueCounts
from dispatcher.edges.mongo import Database, DatabaseError, oldest_queued, overdue_since
from schemas import PRIORITIES

_logger = log.get("depths")

Counts = Mapping[str, Count | None]


class Depths:
    """Asks for as long as it runs; both servers may be away."""

    def __init__(self, settings: Settings, database: Database) -> None:
        self._interval = settings.scheduler.depth_interval
        self._database = database
        self._lanes = settings.lanes
        self._names = names = Names(settings.amqp.prefix)
        self._queues = [queue.name for queue in build(names, settings.lanes).queues]
        self._ladder = {names.delay(level): f"{level:02d}" for level in range(ladder.LEVELS)}
        self._work = {names.work_queue(lane, each): (lane, each) for lane in settings.lanes for each in PRIORITIES}
        self._counts = QueueCounts(settings.amqp.url.get_secret_value(), "depths", settings.amqp.heartbeat)
        self._task: asyncio.Task[None] | None = None

    def start(self) -> None:
        """Begin to ask, in the background."""
        self._task = asyncio.create_task(self._run(), name="depths")

    async def stop(self) -> None:
        """Ask no more."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)
        await self._counts.close()

    async def _run(self) -> None:
        while True:
            await asyncio.gather(self._look_at_queues(), self._look_at_history())
            await asyncio.sleep(self._interval)

    async def _look_at_queues(self) -> None:
        counts: Counts = {}
        try:
            counts = await self._counts.read(self._queues)
        except BrokerError as error:
            _logger.debug("cannot ask for the queues' depths", error=str(error))
        except Exception:
            _logger.exception("cannot ask for the queues' depths")
        self._show(counts)

    def _show(self, counts: Counts) -> None:
        there = {name: count for name, count in counts.items() if count is not None}
        short = {name: name.removeprefix(self._names.prefix) for name in there}
        others = there.keys() - self._ladder.keys()
        metrics.show(metrics.work_ready, {self._work[n]: c.ready for n, c in there.items() if n in self._work})
        metrics.show(metrics.ladder_ready, {(self._ladder[n],): c.ready for n, c in there.items() if n in self._ladder})
        metrics.show(metrics.queue_ready, {(short[n],): there[n].ready for n in others - self._work.keys()})
        metrics.show(metrics.queue_consumers, {(short[n],): there[n].consumers for n in others})
        metrics.queues_missing.set(len(counts) - len(there) if counts else float("nan"))

    async def _look_at_history(self) -> None:
        ages: dict[tuple[str, ...], float] = {}
        overdue: dict[tuple[str, ...], float] = {}
        try:
            queued, due = await asyncio.gather(
                oldest_queued(self._database, self._lanes), overdue_since(self._database, self._lanes)
            )
            now = clock.now_ms()
            ages, overdue = _ages(queued, now), _ages(due, now)
        except DatabaseError as error:
            _logger.debug("cannot ask for the oldest jobs", error=type(error).__name__)
        except Exception:
            _logger.exception("cannot ask for the oldest jobs")
        metrics.show(metrics.oldest_age, ages)
        metrics.show(metrics.overdue, overdue)


def _ages(since: Mapping[tuple[str, str], int | None], now: int) -> dict[tuple[str, ...], float]:
    """Seconds since each moment; 0 where it is still to come, or there is none."""
    return {key: 0 if at is None else max(now - at, 0) / 1000 for key, at in since.items()}
