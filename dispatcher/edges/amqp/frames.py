"""Encoding a publish as AMQP 0-9-1 frames (sections 2.3.5, 4.2.3 and 4.2.6 of the specification).

aiormq can do this too, with an object and a task for every frame; a message of ours needs one shape only, and this
is the hot path of every service. What is rare (headers) is left to pamqp.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable
from functools import lru_cache
from typing import Any

from pamqp import encode

_FRAME_END = b"\xce"
_FRAME_HEADER = struct.Struct(">BHI")
_METHOD, _HEADER, _BODY = 1, 2, 3
_BASIC_PUBLISH = struct.pack(">HHH", 60, 40, 0)
_BASIC_ACK = (60, 80)
_BASIC_NACK = (60, 120)
_REQUEUE = 2
_ACK = struct.Struct(">HHQB")
_MANDATORY = b"\x01"
_CONTENT = struct.Struct(">HHQH")
_CLASS_BASIC = 60

_CONTENT_TYPE, _HEADERS, _DELIVERY_MODE = 1 << 15, 1 << 13, 1 << 12
_CORRELATION_ID, _REPLY_TO, _EXPIRATION, _MESSAGE_ID = 1 << 10, 1 << 9, 1 << 8, 1 << 7

_JSON = b"\x10application/json"
_PERSISTENT = b"\x02"


def _short(text: str) -> bytes:
    """A short string: a length of one byte, then the text.

    Raises:
        ValueError: more than 255 bytes.
    """
    data = text.encode()
    if len(data) > 255:
        raise ValueError("an AMQP short string holds at most 255 bytes")
    return bytes((len(data),)) + data


def _frame(kind: int, channel: int, payload: bytes) -> bytes:
    return _FRAME_HEADER.pack(kind, channel, len(payload)) + payload + _FRAME_END


@lru_cache(maxsize=1024)
def _method(channel: int, exchange: str, routing_key: str) -> bytes:
    payload = _BASIC_PUBLISH + _short(exchange) + _short(routing_key) + _MANDATORY
    return _frame(_METHOD, channel, payload)


def ack_frames(channel: int, upto: int | None, single: Iterable[int]) -> bytes:
    """The frames that acknowledge every tag up to ``upto`` (None: no prefix) and each of ``single``."""
    frames = [] if upto is None else [_frame(_METHOD, channel, _ACK.pack(*_BASIC_ACK, upto, 1))]
    frames += [_frame(_METHOD, channel, _ACK.pack(*_BASIC_ACK, tag, 0)) for tag in single]
    return b"".join(frames)


def give_back_frame(channel: int, tag: int) -> bytes:
    """The frame that returns one message to its queue."""
    return _frame(_METHOD, channel, _ACK.pack(*_BASIC_NACK, tag, _REQUEUE))


def publish_frames(
    channel: int,
    frame_max: int,
    exchange: str,
    routing_key: str,
    body: bytes,
    message_id: str,
    *,
    headers: dict[str, Any] | None = None,
    correlation_id: str | None = None,
    reply_to: str | None = None,
    lifetime_ms: int | None = None,
) -> bytes:
    """The frames of one mandatory, persistent JSON message.

    Args:
        channel: the channel's number.
        frame_max: the connection's largest frame, in bytes.
        exchange, routing_key, body: the message; names have at most 255 bytes.
        message_id: unique among the channel's messages that are not confirmed yet.
        headers, correlation_id, reply_to: further properties.
        lifetime_ms: the property ``expiration``, which is text: milliseconds that the message stays in its queue.

    Raises:
        ValueError: a name is too long.
    """
    flags = _CONTENT_TYPE | _DELIVERY_MODE | _MESSAGE_ID
    # properties stand in the order of their flags, the highest first
    properties = _JSON
    if headers:
        flags |= _HEADERS
        properties += encode.field_table(headers)
    properties += _PERSISTENT
    if correlation_id is not None:
        flags |= _CORRELATION_ID
        properties += _short(correlation_id)
    if reply_to is not None:
        flags |= _REPLY_TO
        properties += _short(reply_to)
    if lifetime_ms is not None:
        flags |= _EXPIRATION
        properties += _short(str(lifetime_ms))
    properties += _short(message_id)
    header = _CONTENT.pack(_CLASS_BASIC, 0, len(body), flags) + properties
    largest = frame_max - _FRAME_HEADER.size - len(_FRAME_END)
    parts = [_method(channel, exchange, routing_key), _frame(_HEADER, channel, header)]
    parts += [_frame(_BODY, channel, body[i : i + largest]) for i in range(0, len(body), largest)]
    return b"".join(parts)
