"""What a handler is told about its execution."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

from consumers.progress import Progress, checked
from dispatcher.edges import log
from schemas import Trace


@dataclass(frozen=True, slots=True)
class Context:
    """One execution of one job.

    ``run`` counts from 1 and grows with each manual retry; ``attempt`` counts from 1 within the run; ``execution`` is
    unique for every start. ``trace`` is the client's W3C trace context, if it sent one.
    """

    id: str
    app: str
    type: str
    run: int
    attempt: int
    execution: str
    tags: tuple[str, ...] = ()
    trace: Trace | None = None
    _tell: Callable[[Progress], None] | None = field(default=None, repr=False, compare=False)
    _cancelled: threading.Event = field(default_factory=threading.Event, repr=False, compare=False)

    @property
    def log(self) -> Any:
        """A structured logger whose lines carry app, job, run and attempt."""
        return log.get("handler").bind(app=self.app, job=self.id, run=self.run, attempt=self.attempt)

    @property
    def cancelled(self) -> bool:
        """Whether the result no longer matters (timed out, or the worker stops); long sync handlers look at it."""
        return self._cancelled.is_set()

    def progress(self, done: float, total: float | None = None, message: str | None = None) -> None:
        """Say how far the work has come; ``dispatcher jobs show`` tells.

        It may be called as often as you like: history hears of it at most once a second, and of the last value.

        Raises:
            ValueError: a number is not finite, or the message is no text.
        """
        progress = checked(done, total, message)
        if self._tell is not None:
            self._tell(progress)

    def cancel(self) -> None:
        """Set the flag; the worker's business."""
        self._cancelled.set()


@dataclass(frozen=True, slots=True)
class BatchContext:
    """One execution of a batch handler.

    ``id`` is the batch's, or the job's where that came alone. ``members`` has the context of each job, in the order of
    the payloads.
    """

    id: str
    app: str
    type: str
    members: tuple[Context, ...]

    @property
    def log(self) -> Any:
        """A structured logger whose lines carry app, batch and the number of its members."""
        return log.get("handler").bind(app=self.app, batch=self.id, members=len(self.members))

    @property
    def cancelled(self) -> bool:
        """Whether the result no longer matters to any member; long sync handlers look at it."""
        return all(member.cancelled for member in self.members)

    def progress(self, done: float, total: float | None = None, message: str | None = None) -> None:
        """Say how far the work has come; history hears of it for every member, as of `Context.progress`.

        Raises:
            ValueError: a number is not finite, or the message is no text.
        """
        progress = checked(done, total, message)
        for member in self.members:
            if member._tell is not None:
                member._tell(progress)

    def cancel(self) -> None:
        """Set the flag, and that of every member; the worker's business."""
        for member in self.members:
            member.cancel()


def batch_context(batch: str, members: Sequence[Context]) -> BatchContext:
    """That of these jobs, at least one; ``batch`` is empty for one that came alone."""
    first = members[0]
    return BatchContext(batch or first.id, first.app, first.type, tuple(members))
