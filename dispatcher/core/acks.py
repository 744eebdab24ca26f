"""Which delivery tags to acknowledge, and how, so that one long job among short ones stops nothing.

A flush acknowledges the finished prefix with one ``multiple`` and every other finished tag singly. With the prefix
alone, one job of 300 s fills the prefetch with finished work.
"""

from __future__ import annotations

from collections import OrderedDict
from typing import NamedTuple


class Flush(NamedTuple):
    """``upto`` is acknowledged with ``multiple`` (None: no prefix), ``single`` one by one."""

    upto: int | None
    single: tuple[int, ...]


class AckLedger:
    """The outstanding delivery tags of one channel, which the broker numbers in rising order.

    It knows those alone, however many came after the first of them.
    """

    def __init__(self) -> None:
        #: In their order. A plain dict would look at everything that it ever held to find its first.
        self._outstanding: OrderedDict[int, None] = OrderedDict()
        self._finished: set[int] = set()

    @property
    def outstanding(self) -> int:
        """Deliveries not acknowledged yet."""
        return len(self._outstanding)

    def delivered(self, tag: int) -> None:
        """A message arrived."""
        self._outstanding[tag] = None

    def finish(self, tag: int) -> None:
        """What replaces the message is safe; it may be acknowledged."""
        self._finished.add(tag)

    def give_back(self, tag: int) -> None:
        """The message was returned to its queue: nothing is left to acknowledge."""
        self._outstanding.pop(tag, None)

    def flush(self) -> Flush:
        """Everything that may be acknowledged now."""
        upto = None
        waiting, finished = self._outstanding, self._finished
        while finished and waiting and (tag := next(iter(waiting))) in finished:
            del waiting[tag]
            finished.discard(tag)
            upto = tag
        single = tuple(sorted(finished))
        for tag in single:
            waiting.pop(tag, None)
        finished.clear()
        return Flush(upto, single)
