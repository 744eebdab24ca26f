"""The executions that run in one worker, and how an operator ends them."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager

from dispatcher.core.cancelling import Tombstone
from dispatcher.core.history import document_id
from schemas import WorkMessage


class Stop:
    """Ends one execution from outside: its task is cancelled, which is not the worker's own stop.

    To be made in the task that runs it. What the handler does about it makes no difference to the outcome.
    """

    def __init__(self) -> None:
        self._task = asyncio.current_task()
        self._closed = False
        #: The tombstone on whose account it was stopped.
        self.tombstone: Tombstone | None = None

    def ask(self, tombstone: Tombstone) -> None:
        """Cancel it, once."""
        if self.tombstone is None and not self._closed and self._task is not None:
            self.tombstone = tombstone
            self._task.cancel()

    def close(self) -> None:
        """The handler is over: what else cancels the task is the worker's stop."""
        if not self._closed and self.tombstone is not None and self._task is not None:
            self._task.uncancel()
        self._closed = True


class RunningTable:
    """Running executions by job; a forked run may have two."""

    def __init__(self) -> None:
        self._stops: dict[str, list[tuple[int, Stop]]] = {}

    @contextmanager
    def entry(self, work: WorkMessage) -> Iterator[Stop]:
        """An execution of this step, for the time that it takes."""
        job, entry = document_id(work.app, work.id), (work.run, Stop())
        self._stops.setdefault(job, []).append(entry)
        try:
            yield entry[1]
        finally:
            entry[1].close()
            self._stops[job].remove(entry)
            if not self._stops[job]:
                del self._stops[job]

    def cancel(self, tombstone: Tombstone) -> None:
        """End the executions of these runs."""
        for run, stop in self._stops.get(tombstone.job, ()):
            if run <= tombstone.run:
                stop.ask(tombstone)
