"""Noticing that this process did not run for a while: SIGSTOP, a suspended machine, a handler that held the loop."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable

#: Seconds between two looks at the clock.
TICK = 1.0


class Standstill:
    """Tells of a pause so long that the broker may have given this process's messages to others.

    Args:
        limit: seconds for which the broker waits, at least, for a silent connection.
        on_pause: called after such a pause, before the process is taken for awake again.
    """

    def __init__(self, limit: float, on_pause: Callable[[], None]) -> None:
        self._limit = limit
        self._on_pause = on_pause
        self._seen = time.monotonic()
        self._task: asyncio.Task[None] | None = None

    @property
    def noticed(self) -> bool:
        """Whether the process stood still and `on_pause` was not called yet."""
        return time.monotonic() - self._seen > self._limit

    def start(self) -> None:
        """Begin to look at the clock."""
        self._seen = time.monotonic()
        self._task = asyncio.create_task(self._tick(), name="standstill")

    def stop(self) -> None:
        """Look no more."""
        if self._task is not None:
            self._task.cancel()

    async def _tick(self) -> None:
        while True:
            await asyncio.sleep(TICK)
            paused = self.noticed
            self._seen = time.monotonic()
            if paused:
                self._on_pause()
