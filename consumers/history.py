"""What a worker asks of history, and what it tells it early."""

from __future__ import annotations

import asyncio
import time
from typing import Any

from config import Settings
from dispatcher.core.lifecycle import FINAL
from dispatcher.edges import log
from dispatcher.edges.amqp import Entry, Outbox
from dispatcher.edges.mongo import Database, DatabaseWatch, JobStore
from schemas import Started, WorkMessage

_logger = log.get("worker")

#: Longest wait for history's answer about a run, and pause after it gave none, in seconds.
HISTORY_TIMEOUT = 2.0
HISTORY_PAUSE = 5.0


class StartNotice:
    """Tells history that an execution began, unless its end, which says the same, comes first."""

    def __init__(self, outbox: Outbox, fields: dict[str, Any]) -> None:
        self._outbox = outbox
        self._fields = fields
        self._entry: Entry | None = None
        # a handler that never waits ends before this is called
        self._handle = asyncio.get_running_loop().call_soon(self._send)

    def _send(self) -> None:
        self._entry = self._outbox.add([], [Started(**self._fields)])

    def withdraw(self) -> None:
        """The end is known: what was not published yet need not be."""
        self._handle.cancel()
        if self._entry is not None and not self._entry.taken:
            self._entry.events = ()


class History:
    """Asks MongoDB whether a step's run is over; no answer means: run it."""

    def __init__(self, settings: Settings) -> None:
        self._database = Database(settings.mongo.url.get_secret_value(), settings.mongo.database)
        self._jobs = JobStore(self._database)
        self._away_until = 0.0
        self.watch = DatabaseWatch(self._database)

    async def is_final(self, work: WorkMessage) -> bool:
        """Whether history has a later run, or a final state of this one."""
        if time.monotonic() < self._away_until:
            return False
        try:
            found = await asyncio.wait_for(self._jobs.run_and_state(work.app, work.id), HISTORY_TIMEOUT)
        except Exception as error:
            self._away_until = time.monotonic() + HISTORY_PAUSE
            _logger.warning("history cannot be asked; running the step", error=type(error).__name__)
            return False
        if found is None:
            return False
        run, state = found
        return run > work.run or (run == work.run and state in FINAL)

    async def close(self) -> None:
        await self.watch.stop()
        self._database.close()
