"""Removing tombstones of cancelled runs that have done their work, so that workers need not keep them in memory."""

from __future__ import annotations

import asyncio

from dispatcher.edges import clock, log
from dispatcher.edges.mongo import CancelStore, Database, DatabaseError

_logger = log.get("scheduler")

#: For how long a tombstone stays after a worker met it: copies of the step may still come.
KEPT_MS = 3_600_000
#: Seconds between two passes.
INTERVAL = 300.0


class Sweep:
    """Removes them from time to time. Several may run."""

    def __init__(self, database: Database) -> None:
        self._store = CancelStore(database)
        self._task: asyncio.Task[None] | None = None

    def start(self) -> None:
        """Begin."""
        self._task = asyncio.create_task(self._run(), name="tombstones")

    async def stop(self) -> None:
        """End."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)

    async def _run(self) -> None:
        while True:
            try:
                await self._store.clear(clock.now_ms(), KEPT_MS)
            except DatabaseError as error:
                _logger.warning("cannot remove old tombstones", error=type(error).__name__)
            except Exception:
                _logger.exception("cannot remove old tombstones")
            await asyncio.sleep(INTERVAL)
