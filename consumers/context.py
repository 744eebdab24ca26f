"""What a handler is told about its execution."""

from __future__ import annotations

import threading
from dataclasses import dataclass, field
from typing import Any

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
    _cancelled: threading.Event = field(default_factory=threading.Event, repr=False, compare=False)

    @property
    def log(self) -> Any:
        """A structured logger whose lines carry app, job, run and attempt."""
        return log.get("handler").bind(app=self.app, job=self.id, run=self.run, attempt=self.attempt)

    @property
    def cancelled(self) -> bool:
        """Whether the result no longer matters (timed out, or the worker stops); long sync handlers look at it."""
        return self._cancelled.is_set()

    def cancel(self) -> None:
        """Set the flag; the worker's business."""
        self._cancelled.set()
