"""Which waiting job starts next: the highest priority, except one start in ten for the longest waiting lower job."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator
from typing import Generic, TypeVar

from schemas import PRIORITIES

#: At most one start in this many goes to a lower job.
AGED_EVERY = 10

Item = TypeVar("Item")


class ReadyJobs(Generic[Item]):
    """Jobs that a worker holds but does not run, by priority; within one, in the order of arrival."""

    def __init__(self) -> None:
        self._levels: tuple[deque[tuple[int, Item]], ...] = tuple(deque() for _ in PRIORITIES)
        self._arrivals = 0
        #: Starts in a row that were to pass a lower job by.
        self._passed_by = 0
        self._count = 0

    def __len__(self) -> int:
        return self._count

    def __iter__(self) -> Iterator[Item]:
        return (item for level in self._levels for _, item in level)

    @property
    def highest(self) -> int | None:
        """The rank of the highest priority that waits (0 is critical), None where nothing does."""
        return next((rank for rank, level in enumerate(self._levels) if level), None)

    def push(self, priority: str, item: Item) -> None:
        """Add a job that arrived."""
        self._arrivals += 1
        self._count += 1
        self._levels[PRIORITIES.index(priority)].append((self._arrivals, item))

    def pop(self) -> Item:
        """Take the job to start now.

        Raises:
            IndexError: nothing waits.
        """
        filled = [level for level in self._levels if level]
        level = filled[0]
        # only starts that passed a lower job by count: after a time of lower jobs alone, a higher one starts at once
        self._passed_by = self._passed_by + 1 if len(filled) > 1 else 0
        if self._passed_by >= AGED_EVERY:
            level = min(filled[1:], key=lambda waiting: waiting[0][0])
            self._passed_by = 0
        self._count -= 1
        return level.popleft()[1]

    def take(self, wanted: Callable[[Item], bool]) -> list[Item]:
        """Take out what is wanted, the highest priority first; the rest waits on in its order."""
        taken: list[Item] = []
        for level in self._levels:
            found = [item for _, item in level if wanted(item)]
            if found:
                kept = [(arrival, item) for arrival, item in level if not wanted(item)]
                level.clear()
                level.extend(kept)
                taken += found
        self._count -= len(taken)
        return taken

    def clear(self) -> list[Item]:
        """Take everything out, the highest priority first."""
        return self.take(lambda _: True)
