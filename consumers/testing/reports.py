"""How far a simulated execution has come, as its handler says."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress

from consumers.progress import Progress
from consumers.testing.virtual import VirtualLoop


class Reports:
    """The latest report of an execution's progress, on its way from whatever thread into the loop."""

    def __init__(self, loop: VirtualLoop, record: Callable[[Progress], None]) -> None:
        self._loop = loop
        self._record = record
        self._latest: list[Progress] = []
        self._over = False

    def add(self, progress: Progress) -> None:
        """The handler reports; after its end nobody listens."""
        if self._over:
            return
        self._latest = [progress]
        with suppress(RuntimeError):  # the simulation is over, and this thread is not
            self._loop.call_soon_threadsafe(self.tell)

    def end(self) -> None:
        """The execution is over; what was said last is recorded."""
        self._over = True
        self.tell()

    def tell(self) -> None:
        """Record what has not been."""
        latest, self._latest = self._latest, []
        for progress in latest:
            self._record(progress)
