"""Looking at an installation again and again, for `dispatcher top`: queues by passive declarations, and history."""

from __future__ import annotations

import asyncio

from config import Settings
from dispatcher.core.overview import HistoryLook, Look
from dispatcher.core.topology import Names, build
from dispatcher.edges import clock
from dispatcher.edges.amqp import QueueCounts
from dispatcher.edges.management import Management, ManagementError
from dispatcher.edges.mongo import Database, DatabaseError, accepted_between, clock_ahead, oldest_queued, running

#: What is accepted reaches history within this time; rates are of the time before, in milliseconds.
BEHIND_MS = 1_500


class Overview:
    """Asks the broker and MongoDB; changes nothing in either."""

    def __init__(self, settings: Settings) -> None:
        self.lanes = settings.lanes
        self.names = Names(settings.amqp.prefix)
        management, url = settings.amqp.management_url, settings.amqp.url.get_secret_value()
        self._management = Management(management.get_secret_value(), url) if management else None
        self._queues = [queue.name for queue in build(self.names, settings.lanes).queues]
        self._counts = QueueCounts(url, "top")
        self._database = Database(settings.mongo.url.get_secret_value(), settings.mongo.database)

    async def look(self, since: int | None = None) -> Look:
        """What is there now; ``since`` is the time of the look before.

        Raises:
            BrokerError: RabbitMQ is away.
        """
        now = clock.now_ms()
        counts, history, held = await asyncio.gather(
            self._counts.read(self._queues), self._history(since or now, now), self._held()
        )
        queues = {name: None if count is None else (count.ready, count.consumers) for name, count in counts.items()}
        return Look(now, queues, history, held)

    async def _held(self) -> dict[str, int] | None:
        if self._management is None:
            return None
        try:
            return await self._management.unacknowledged()
        except ManagementError:
            return None

    async def clock_ahead(self) -> tuple[float, float] | None:
        """By how many seconds our clock is ahead of MongoDB's, and how far off that may be; None while it is away."""
        try:
            return await clock_ahead(self._database)
        except DatabaseError:
            return None

    async def _history(self, since: int, now: int) -> HistoryLook | None:
        try:
            oldest, runs, accepted = await asyncio.gather(
                oldest_queued(self._database, self.lanes),
                running(self._database),
                accepted_between(self._database, since - BEHIND_MS, now - BEHIND_MS),
            )
        except DatabaseError:
            return None
        return HistoryLook(oldest, runs, accepted)

    async def close(self) -> None:
        """Close the connections."""
        await self._counts.close()
        self._database.close()
