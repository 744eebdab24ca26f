"""Decoding properties that RabbitMQ passes on but pamqp refuses.

A text that is not UTF-8, a time beyond the year 9999 or a header nested a thousand deep raises in pamqp, which costs
the connection; the message comes back, and so one message of a stranger would stop every consumer for good. Here such
a value is replaced by something harmless instead, and the message is judged like any other.
"""

from __future__ import annotations

import datetime
from typing import Any

from pamqp import decode

#: Headers nested deeper than this are read as None; nobody looks into them.
MAX_NESTING = 8

_NESTED = {b"F", b"A"}


def install() -> None:
    """Put the tolerant decoders into pamqp's tables, for the whole process; doing it again changes nothing."""
    decode.METHODS["shortstr"] = short_string
    decode.METHODS["timestamp"] = decode.TABLE_MAPPING[b"T"] = timestamp
    decode.METHODS["table"] = table


def short_string(value: bytes) -> tuple[int, str]:
    """A short string; what is not UTF-8 becomes "?", which is never longer than what it replaces."""
    end = value[0] + 1
    return end, _text(value[1:end])


def _text(raw: bytes) -> str:
    try:
        return raw.decode()
    except UnicodeDecodeError:
        return raw.decode(errors="replace").replace("\ufffd", "?")


def timestamp(value: bytes) -> tuple[int, datetime.datetime | None]:
    """A time, or None where Python has no such year."""
    try:
        return decode.timestamp(value)
    except (ValueError, OverflowError, OSError):
        return 8, None


def table(value: bytes, depth: int = 1) -> tuple[int, dict[str, Any]]:
    """A field table."""
    end, offset = _end(value), 4
    found: dict[str, Any] = {}
    while offset < end:
        length, name = short_string(value[offset : offset + 256])
        offset += length
        used, found[name] = _field(value[offset:end], depth)
        offset += used
    return end, found


def _array(value: bytes, depth: int) -> tuple[int, list[Any]]:
    end, offset = _end(value), 4
    found = []
    while offset < end:
        used, item = _field(value[offset:end], depth)
        offset += used
        found.append(item)
    return end, found


def _field(value: bytes, depth: int) -> tuple[int, Any]:
    kind, rest = value[:1], value[1:]
    if kind not in _NESTED:
        used, item = decode.embedded_value(value)
        return used, item
    if depth >= MAX_NESTING:
        return 1 + _end(rest), None
    used, nested = (table if kind == b"F" else _array)(rest, depth + 1)
    return 1 + used, nested


def _end(value: bytes) -> int:
    return 4 + int.from_bytes(value[:4], "big")
