"""What a handler is told about its execution."""

from __future__ import annotations

import threading
from collections.abc import Callable
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
