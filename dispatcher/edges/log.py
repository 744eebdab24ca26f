"""Structured logs: JSON for machines, aligned text on a terminal, both on stderr.

Every line goes through the standard library's logger ``job_dispatcher.<component>``, so that an application that uses
our client decides itself what becomes of it. Only our own processes call `configure`.
"""

from __future__ import annotations

import logging
import sys
from collections.abc import MutableMapping
from datetime import UTC, datetime
from typing import Any

import structlog

#: Where all our loggers hang.
ROOT = "job_dispatcher"
_ATTRIBUTE = "dispatcher_fields"

#: Libraries that complain of every broken connection, which we report ourselves, once and in our words.
QUIET = ("aiormq", "aio_pika", "pymongo", "uvicorn.error")


def configure(level: str, style: str) -> None:
    """Set up logging for a process of ours.

    Args:
        level: ``debug``, ``info``, ``warning`` or ``error``.
        style: ``json``, ``console``, or ``auto`` (console on a terminal).
    """
    console = style == "console" or (style == "auto" and sys.stderr.isatty())
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(_Formatter(console))
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(logging.WARNING)
    logging.getLogger(ROOT).setLevel(level.upper())
    for name in QUIET:
        logging.getLogger(name).setLevel(logging.CRITICAL)


def get(component: str) -> Any:
    """A logger; its key-value pairs become fields."""
    return structlog.wrap_logger(
        logging.getLogger(f"{ROOT}.{component}"),
        processors=[structlog.stdlib.filter_by_level, _to_record],
        wrapper_class=structlog.stdlib.BoundLogger,
    )


def fields_of(record: logging.LogRecord) -> dict[str, Any]:
    """What a record of one of our loggers says: its text as ``event``, and its key-value pairs."""
    found: dict[str, Any] = getattr(record, _ATTRIBUTE, None) or {"event": record.getMessage()}
    return found


def _to_record(_: Any, __: str, event: MutableMapping[str, Any]) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """Hand the event to the standard logger: as text for anybody's formatter, and as fields for ours."""
    exc_info = event.pop("exc_info", None)
    text = str(event.pop("event"))
    shown = " ".join([text, *(f"{name}={value!r}" for name, value in event.items())])
    # one attribute, since a field called "name" or "args" would clash with the record's own
    return ("%s", shown), {"extra": {_ATTRIBUTE: {"event": text, **event}}, "exc_info": exc_info}


class _Formatter(logging.Formatter):
    """One line a record: JSON, or text for a terminal."""

    def __init__(self, console: bool) -> None:
        super().__init__()
        self._render: Any = (
            structlog.dev.ConsoleRenderer(colors=sys.stderr.isatty())
            if console
            else structlog.processors.JSONRenderer(default=str)
        )

    def format(self, record: logging.LogRecord) -> str:
        """The record as a line (with a traceback, if it has one)."""
        fields = fields_of(record)
        line: dict[str, Any] = {
            "timestamp": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname.lower(),
            "component": record.name.removeprefix(f"{ROOT}."),
            **fields,
        }
        if record.exc_info:
            line["exception"] = self.formatException(record.exc_info)
        return str(self._render(None, record.levelname.lower(), line))
