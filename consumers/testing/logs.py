"""What handlers log, kept for the test to look at."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from dispatcher.edges import log


@dataclass(frozen=True, slots=True)
class LogLine:
    """One line of ``ctx.log``: its level (``info``), its text and its key-value pairs."""

    level: str
    event: str
    fields: dict[str, Any]


@contextmanager
def heard(tell: Callable[[LogLine], None]) -> Iterator[None]:
    """Hand over every line of a handler, whatever its level; they go to the test's own logging too."""
    logger = logging.getLogger(f"{log.ROOT}.handler")
    ear, level = _Ear(tell), logger.level
    logger.addHandler(ear)
    logger.setLevel(logging.DEBUG)
    try:
        yield
    finally:
        logger.removeHandler(ear)
        logger.setLevel(level)


class _Ear(logging.Handler):
    def __init__(self, tell: Callable[[LogLine], None]) -> None:
        super().__init__()
        self._tell = tell

    def emit(self, record: logging.LogRecord) -> None:
        fields = dict(log.fields_of(record))
        self._tell(LogLine(record.levelname.lower(), str(fields.pop("event")), fields))
