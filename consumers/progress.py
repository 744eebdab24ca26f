"""How far an execution has come, as its handler says."""

from __future__ import annotations

import math
import threading
from collections.abc import Callable
from dataclasses import dataclass
from numbers import Integral, Real
from typing import Any

from consumers.failures import clean

#: Longest message that is kept, in characters.
MAX_MESSAGE = 500
#: Seconds between two reports of one execution.
INTERVAL = 1.0
#: Integers that MongoDB holds.
_MOST = 2**63 - 1


@dataclass(frozen=True, slots=True)
class Progress:
    """What a handler reported last, checked."""

    done: int | float
    total: int | float | None = None
    message: str | None = None


def checked(done: Any, total: Any, message: Any) -> Progress:
    """What a handler reports, fit for history.

    Raises:
        ValueError: a number is not finite, or none; or the message is no text.
    """
    if message is not None and not isinstance(message, str):
        raise ValueError(f"progress: message must be text, not {type(message).__name__}")
    return Progress(
        _number("done", done),
        None if total is None else _number("total", total),
        None if message is None else clean(message.strip(), MAX_MESSAGE),
    )


def _number(name: str, value: Any) -> int | float:
    if isinstance(value, bool) or not isinstance(value, Real):
        raise ValueError(f"progress: {name} must be a number, not {type(value).__name__}")
    if isinstance(value, Integral):
        if abs(int(value)) > _MOST:
            raise ValueError(f"progress: {name} must fit into 64 bits")
        return int(value)
    if not math.isfinite(number := float(value)):
        raise ValueError(f"progress: {name} must be finite")
    return number


class Throttled:
    """Passes the reports of a child's handler on: the first at once, then the last values once in an interval.

    Args:
        send: called with an execution and its report.
        interval: seconds.
    """

    def __init__(self, send: Callable[[str, Progress], None], interval: float = INTERVAL / 2) -> None:
        self._send = send
        self._interval = interval
        self._lock = threading.Lock()
        self._pending: dict[str, Progress] = {}
        self._timer: threading.Timer | None = None
        self._over = False

    def tell(self, execution: str, progress: Progress) -> None:
        """The handler reports, from whatever thread."""
        with self._lock:
            if self._over:
                return
            self._pending[execution] = progress
            if self._timer is None:
                self._pass_on()

    def end(self) -> None:
        """The handler is over: pass on what is left, and nothing that a thread of it says later."""
        with self._lock:
            self._over, timer = True, self._timer
            if timer is not None:
                timer.cancel()
            self._send_pending()

    def _send_pending(self) -> None:
        pending, self._pending = self._pending, {}
        for execution, progress in pending.items():
            self._send(execution, progress)

    def _pass_on(self) -> None:
        if self._over or not self._pending:
            return
        self._send_pending()
        self._timer = threading.Timer(self._interval, self._again)
        self._timer.daemon = True
        self._timer.start()

    def _again(self) -> None:
        with self._lock:
            self._timer = None
            self._pass_on()
