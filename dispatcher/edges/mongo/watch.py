"""Whether MongoDB answers, asked once a second; for readiness."""

from __future__ import annotations

import asyncio
import contextlib

from dispatcher.edges import log
from dispatcher.edges.mongo.client import Database, DatabaseError

_logger = log.get("mongo")

PAUSE = 1.0


class DatabaseWatch:
    """Pings a database in the background."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._task: asyncio.Task[None] | None = None
        #: Whether the last ping was answered.
        self.fine = False

    def start(self) -> None:
        """Begin to ask."""
        self._task = asyncio.create_task(self._run(), name="database watch")

    async def stop(self) -> None:
        """Stop asking."""
        if self._task is not None:
            self._task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._task

    async def _run(self) -> None:
        while True:
            was, self.fine = self.fine, await self._ask()
            if was and not self.fine:
                _logger.warning("MongoDB does not answer")
            await asyncio.sleep(PAUSE)

    async def _ask(self) -> bool:
        try:
            await self._database.ping()
        except DatabaseError:
            return False
        return True
