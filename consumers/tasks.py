"""Async handlers, each in a task of its own.

A task that is cancelled need not end: its handler may catch that and go on. One that does so for longer than
`CLEAN_UP` is left to itself, so that it keeps neither its place nor the stop of the worker waiting.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Awaitable, Callable
from typing import Any

from dispatcher.edges import log, metrics

_logger = log.get("worker")

#: Time that a handler has for its ``finally`` blocks once it is cancelled, in seconds.
CLEAN_UP = 3.0

#: What a task raises to its loop, not to who waits for it.
_TO_THE_LOOP = (SystemExit, KeyboardInterrupt)


class TaskCall:
    """One call of a handler, in a task that may be left to itself."""

    def __init__(self, function: Callable[[], Awaitable[Any]]) -> None:
        self._task = asyncio.get_running_loop().create_task(_call(function))

    async def result(self) -> Any:
        """What the handler returns, or raises. Where this is cancelled, the handler goes on until `end`."""
        try:
            await asyncio.wait((self._task,))
        except asyncio.CancelledError:
            if not self._task.done():
                raise
        ended = self._task.result()
        if isinstance(ended, _Raised):
            raise ended.error
        return ended

    async def end(self) -> asyncio.Task[Any] | None:
        """Cancel the handler if it still runs; returns its task if it goes on all the same."""
        task = self._task
        if not task.done():
            task.cancel()
            with contextlib.suppress(asyncio.CancelledError):  # whoever waits for it waits no longer
                await asyncio.wait((task,), timeout=CLEAN_UP)
        if not task.done():
            return task
        if not task.cancelled():
            task.exception()  # asked for: else the loop complains that nobody did
        return None


class LeftTasks:
    """The tasks of one worker that were left to themselves."""

    def __init__(self) -> None:
        self._tasks: set[asyncio.Task[Any]] = set()

    def add(self, task: asyncio.Task[Any]) -> None:
        """Nobody waits for it any more."""
        metrics.tasks_abandoned.inc()
        self._tasks.add(task)
        task.add_done_callback(self._ended)

    def _ended(self, task: asyncio.Task[Any]) -> None:
        self._tasks.discard(task)
        metrics.tasks_abandoned.dec()
        if not task.cancelled():
            task.exception()
        _logger.info("a task that was left to itself has ended")

    async def close(self) -> None:
        """Cancel them once more; the loop's end does not wait for those that go on."""
        for task in self._tasks:
            task.cancel()
        await asyncio.sleep(0)
        for task in self._tasks:
            asyncio.tasks._unregister_task(task)
            task._log_destroy_pending = False  # type: ignore[attr-defined]


class _Raised:
    """What would end the loop, and is to end a job."""

    def __init__(self, error: BaseException) -> None:
        self.error = error


async def _call(function: Callable[[], Awaitable[Any]]) -> Any:
    try:
        return await function()
    except _TO_THE_LOOP as error:
        return _Raised(error)
