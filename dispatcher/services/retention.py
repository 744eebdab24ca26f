"""Retention: finished jobs leave history after their days, refusals and parked messages leave their queues.

Each of several schedulers may run it; turns in MongoDB see to it that one at a time does. What a `kill -9` leaves
undone, the next pass does: documents are deleted in batches of which each is whole, and of a queue what is taken out
is acknowledged and nothing else is touched.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from functools import partial

from config import Settings
from dispatcher.core.dated import is_older
from dispatcher.core.topology import DAY_MS, PARKED_LIMITS, REJECTED_LIMITS, Names
from dispatcher.core.types import TypeTable
from dispatcher.edges import clock, log, metrics
from dispatcher.edges.amqp import BrokerError, sift
from dispatcher.edges.mongo import Database, DatabaseError, Forgetting, Turns

_logger = log.get("retention")

#: Seconds between two passes through the queues, whose messages live for days.
SWEEP_EVERY = 3_600.0
#: A pass through a queue ends at so many messages that stay: the oldest come first. Not at the first one, since some
#: may not say how old they are, and a replay that was broken off leaves younger ones in front.
STAYING = 200
#: Messages taken out of a queue on one connection, and pause after it, in seconds.
TAKEN, PAUSE = 10_000, 1.0
#: Pause between two batches of documents, in seconds: others want to write too.
BATCH_PAUSE = 0.05


class Retention:
    """Deletes what is older than the configuration says, for as long as it runs; both servers may be away."""

    def __init__(self, settings: Settings, database: Database) -> None:
        self._retention = settings.retention
        self._types = TypeTable(settings.type_entries)
        self._names = names = Names(settings.amqp.prefix)
        self._url = settings.amqp.url.get_secret_value()
        self._parked = [names.parked(lane) for lane in settings.lanes]
        self._forgetting = Forgetting(database)
        self._turns = Turns(database)
        self._task: asyncio.Task[None] | None = None

    def start(self) -> None:
        """Begin, in the background."""
        self._task = asyncio.create_task(self._run(), name="retention")

    async def stop(self) -> None:
        """Stop, between two batches or within one."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)

    async def _run(self) -> None:
        interval = self._retention.interval
        metrics.retention_passed.set_to_current_time()
        for place in ("history", "refusals", "rejected", "parked"):
            metrics.of(metrics.forgotten, place)
        while True:
            if await self._in_turn("history", interval, self.forget):
                metrics.retention_passed.set_to_current_time()
            await self._in_turn("queues", SWEEP_EVERY, self.sweep)
            await asyncio.sleep(interval)

    async def _in_turn(self, name: str, seconds: float, work: Callable[[], Awaitable[None]]) -> bool:
        """Do the work where it is this scheduler's turn; whether that, or that it is not, went well."""
        try:
            if await self._turns.take(f"retention.{name}", seconds):
                await work()
            return True
        except (DatabaseError, BrokerError) as error:
            _logger.warning("cannot delete what is old", place=name, error=type(error).__name__)
        except Exception:
            _logger.exception("cannot delete what is old", place=name)
        return False

    async def forget(self) -> None:
        """Delete documents of finished jobs and of refusals."""
        now = clock.now_ms()
        async for job_type in self._forgetting.types():
            if (before := self._before(job_type, now)) is not None:
                await self._all("history", partial(self._forgetting.forget_type, job_type, before))
        refusals = _days_ago(now, self._retention.rejected)
        await self._all("refusals", partial(self._forgetting.forget_refusals, refusals))

    def _before(self, job_type: str, now: int) -> int | None:
        rules = self._types.of(job_type)
        days = rules.retention if rules.keeps else self._retention.history
        return None if days is None else _days_ago(now, days)

    async def _all(self, place: str, batch: Callable[[], Awaitable[int]]) -> None:
        while deleted := await batch():
            metrics.of(metrics.forgotten, place).inc(deleted)
            await asyncio.sleep(BATCH_PAUSE)

    async def sweep(self) -> None:
        """Take old messages out of ``rejected`` and the parked queues, where that is not left to their own limit."""
        if self._retention.rejected < REJECTED_LIMITS["x-message-ttl"] / DAY_MS:  # type: ignore[operator]
            await self._sweep(self._names.rejected, "rejected", self._retention.rejected)
        for queue in self._parked:
            if self._retention.parked < PARKED_LIMITS["x-message-ttl"] / DAY_MS:  # type: ignore[operator]
                await self._sweep(queue, "parked", self._retention.parked)

    async def _sweep(self, queue: str, place: str, days: float) -> None:
        before, more = _days_ago(clock.now_ms(), days), True
        while more:
            sifted = await sift(
                self._url, queue, lambda headers, _: is_older(headers, before), most=TAKEN, stays=STAYING
            )
            metrics.of(metrics.forgotten, place).inc(sifted.taken)
            if more := sifted.more:
                await asyncio.sleep(PAUSE)


def _days_ago(now: int, days: float) -> int:
    return now - round(days * DAY_MS)
