"""The executions that run in one worker, and how an operator ends them."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator, Sequence
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


class MemberStop:
    """Stops one member of a batch: its outcome is cancelled, while the handler goes on for the others.

    Args:
        tell: called once it is stopped.
        members: those of all members; when none is left that is not stopped, ``whole`` ends the execution.
    """

    def __init__(self, tell: Callable[[], None], members: Sequence[MemberStop], whole: Stop) -> None:
        self._tell = tell
        self._members = members
        self._whole = whole
        self._closed = False
        #: The tombstone on whose account it was stopped.
        self.tombstone: Tombstone | None = None

    def ask(self, tombstone: Tombstone) -> None:
        """Stop it, once."""
        if self._closed or self.tombstone is not None:
            return
        self.tombstone = tombstone
        self._tell()
        if all(member.tombstone is not None for member in self._members):
            self._whole.ask(tombstone)

    def close(self) -> None:
        """The handler is over."""
        self._closed = True


class RunningTable:
    """Running executions by job; a forked run may have two."""

    def __init__(self) -> None:
        self._stops: dict[str, list[tuple[int, Stop | MemberStop]]] = {}

    @contextmanager
    def entry(self, work: WorkMessage, stop: Stop | MemberStop) -> Iterator[None]:
        """An execution of this step, which ``stop`` ends, for the time that it takes."""
        job, entry = document_id(work.app, work.id), (work.run, stop)
        self._stops.setdefault(job, []).append(entry)
        try:
            yield
        finally:
            stop.close()
            self._stops[job].remove(entry)
            if not self._stops[job]:
                del self._stops[job]

    def cancel(self, tombstone: Tombstone) -> None:
        """End the executions of these runs."""
        for run, stop in self._stops.get(tombstone.job, ()):
            if run <= tombstone.run:
                stop.ask(tombstone)
