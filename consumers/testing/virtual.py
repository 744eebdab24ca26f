"""An event loop whose clock jumps: where a real one would sleep until the next timer, this one is there already."""

from __future__ import annotations

import asyncio
import contextvars
import math
import selectors
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any, TypeVar

Result = TypeVar("Result")


class VirtualClock(selectors.DefaultSelector):
    """The loop's clock and its waiting in one, since waiting is what moves the clock.

    While a thread works for the loop the clock stands still: what sync code does takes no time. Where ``busy`` says
    that a handler runs and there is a socket or a process to hear from, time passes as it really does.
    """

    def __init__(self) -> None:
        super().__init__()
        #: Seconds since the loop was made, and how far they may go.
        self.now = 0.0
        self.horizon = math.inf
        #: Threads that work for the loop.
        self.threads = 0
        self.busy: Callable[[], bool] = lambda: True
        #: Called when nothing is left to do before the horizon.
        self.idle: Callable[[], None] = lambda: None

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        """What the loop asks when it has nothing to do for ``timeout`` seconds (None: for good)."""
        found = super().select(0)
        if found or (timeout is not None and timeout <= 0):
            return found
        if self.threads:
            return super().select(None)  # the thread's end wakes the loop
        wake = math.inf if timeout is None else self.now + timeout
        # the loop's own socket, by which threads wake it, is always there
        if len(self.get_map()) > 1 and self.busy():
            return self._wait(min(wake, self.horizon))
        self._reach(wake)
        return []

    def _wait(self, until: float) -> list[tuple[selectors.SelectorKey, int]]:
        began = time.monotonic()
        found = super().select(None if until == math.inf else until - self.now)
        self._reach(min(until, self.now + time.monotonic() - began) if found else until)
        return found

    def _reach(self, moment: float) -> None:
        if moment > self.horizon or moment == math.inf:
            self.idle()
        if (moment := min(moment, self.horizon)) < math.inf:
            self.now = moment


class VirtualLoop(asyncio.SelectorEventLoop):
    """An event loop on a `VirtualClock`."""

    def __init__(self) -> None:
        self.clock = VirtualClock()
        super().__init__(self.clock)
        self.clock.idle = self.stop
        self._clock_resolution = 1e-6  # after a year the sum of floats no longer tells nanoseconds apart

    def time(self) -> float:
        """Virtual seconds since the loop was made."""
        return self.clock.now

    def run_in_executor(self, executor: Any, func: Any, *args: Any) -> asyncio.Future[Any]:  # type: ignore[override]
        """The same, and the clock stands still until it is done."""
        future = super().run_in_executor(executor, func, *args)
        self.clock.threads += 1
        future.add_done_callback(self._thread_ended)
        return future

    def _thread_ended(self, _: object) -> None:
        self.clock.threads -= 1

    def run_for(self, seconds: float) -> None:
        """Run everything that is due within so many seconds; infinity: until somebody stops the loop."""
        self.clock.horizon = self.clock.now + seconds
        try:
            self.run_forever()
        finally:
            self.clock.horizon = math.inf


def beside_a_loop(function: Callable[[], Result]) -> Result:
    """Call a function that runs a loop: here, or in a thread where an async test runs a loop here already."""
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return function()
    with ThreadPoolExecutor(1) as pool:
        return pool.submit(contextvars.copy_context().run, function).result()
