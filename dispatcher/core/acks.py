"""Which delivery tags to acknowledge, and how, so that one long job among short ones stops nothing.

A flush acknowledges the finished prefix with one ``multiple`` and every other finished tag singly. With the prefix
alone, one job of 300 s fills the prefetch with finished work.
"""

from __future__ import annotations

from collections import deque
from typing import NamedTuple


class Flush(NamedTuple):
    """``upto`` is acknowledged with ``multiple`` (None: no prefix), ``single`` one by one."""

    upto: int | None
    single: tuple[int, ...]


class AckLedger:
    """The outstanding delivery tags of one channel, which the broker numbers in rising order."""

    def __init__(self) -> None:
        self._outstanding: deque[int] = deque()
        self._finished: set[int] = set()
        self._acked: set[int] = set()

    @property
    def outstanding(self) -> int:
        """Deliveries not acknowledged yet."""
        return len(self._outstanding) - len(self._acked)

    def delivered(self, tag: int) -> None:
        """A message arrived."""
        self._outstanding.append(tag)

    def finish(self, tag: int) -> None:
        """What replaces the message is safe; it may be acknowledged."""
        self._finished.add(tag)

    def give_back(self, tag: int) -> None:
        """The message was returned to its queue: nothing is left to acknowledge."""
        self._acked.add(tag)

    def flush(self) -> Flush:
        """Everything that may be acknowledged now."""
        upto = None
        waiting, finished, acked = self._outstanding, self._finished, self._acked
        while waiting and (waiting[0] in finished or waiting[0] in acked):
            tag = waiting.popleft()
            if tag in finished:
                finished.discard(tag)
                upto = tag
            else:
                acked.discard(tag)
        single = tuple(sorted(finished))
        acked.update(single)
        finished.clear()
        return Flush(upto, single)
