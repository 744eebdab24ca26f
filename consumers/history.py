"""What a worker asks of history, and what it tells it early."""

from __future__ import annotations

import asyncio
import time
from typing import Any

from config import Settings
from dispatcher.core.history import document_id
from dispatcher.core.lifecycle import is_past
from dispatcher.edges import log
from dispatcher.edges.amqp import Entry, Outbox
from dispatcher.edges.mongo import Database, DatabaseWatch, JobStore
from schemas import JobState, Started, WorkMessage

_logger = log.get("worker")

#: Longest wait for history's answer about a run, and pause after it gave none, in seconds.
HISTORY_TIMEOUT = 2.0
HISTORY_PAUSE = 5.0
#: An execution that ends within this time is told of once, by its end alone, in seconds.
START_GRACE = 0.01


class StartNotice:
    """Tells history that an execution began, unless its end, which says the same, comes first."""

    def __init__(self, outbox: Outbox, fields: dict[str, Any]) -> None:
        self._outbox = outbox
        self._fields = fields
        self._entry: Entry | None = None
        self._handle = asyncio.get_running_loop().call_later(START_GRACE, self._send)

    def _send(self) -> None:
        self._entry = self._outbox.add([], [Started(**self._fields)])

    def withdraw(self) -> None:
        """The end is known: what was not published yet need not be."""
        self._handle.cancel()
        if self._entry is not None and not self._entry.taken:
            self._entry.events = ()


class History:
    """Asks MongoDB whether a step's run went on without it; no answer means: run it."""

    def __init__(self, settings: Settings) -> None:
        self.database = Database(settings.mongo.url.get_secret_value(), settings.mongo.database)
        self._jobs = JobStore(self.database)
        self._away_until = 0.0
        self._asked: dict[str, asyncio.Future[tuple[int, int, str] | None]] = {}
        self._asking: asyncio.Task[None] | None = None
        self.watch = DatabaseWatch(self.database)

    async def is_past(self, work: WorkMessage) -> bool:
        """Whether history has a later run, a final state of this one, or a later step of it."""
        if time.monotonic() < self._away_until:
            return False
        found = await asyncio.shield(self._ask(document_id(work.app, work.id)))
        if found is None:
            return False
        run, seq, state = found
        return is_past(work.run, work.seq, run, seq, JobState(state))

    def answered(self) -> None:
        """MongoDB has just answered somebody: after an absence it is asked again at once."""
        self._away_until = 0.0

    def _ask(self, job: str) -> asyncio.Future[tuple[int, int, str] | None]:
        """Ask together with everybody who asks while a question is under way."""
        answer = self._asked.get(job)
        if answer is None:
            answer = self._asked[job] = asyncio.get_running_loop().create_future()
            if self._asking is None or self._asking.done():
                self._asking = asyncio.create_task(self._run())
        return answer

    async def _run(self) -> None:
        while self._asked:
            asked, self._asked = self._asked, {}
            found = await self._look_up(list(asked))
            for job, answer in asked.items():
                answer.set_result(found.get(job))

    async def _look_up(self, jobs: list[str]) -> dict[str, tuple[int, int, str]]:
        try:
            return await asyncio.wait_for(self._jobs.places(jobs), HISTORY_TIMEOUT)
        except Exception as error:
            self._away_until = time.monotonic() + HISTORY_PAUSE
            _logger.warning("history cannot be asked; running the steps", error=type(error).__name__, steps=len(jobs))
            return {}

    async def close(self) -> None:
        await self.watch.stop()
        if self._asking is not None:
            self._asking.cancel()
        self.database.close()
