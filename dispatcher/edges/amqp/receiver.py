"""Reading frames from the connection in whole chunks.

aiormq awaits the stream three times for each of the three frames of a delivery, and decodes each property through
several calls; here a chunk of the stream is cut into frames at once, and the two frames that every delivery has
(``basic.deliver``, the content header) are read by hand. That halves the cost of a delivery. Everything else, and
every rarer property, is left to pamqp.
"""

from __future__ import annotations

import asyncio
import struct
from typing import Any

import aiormq.connection
import pamqp.frame
from aiormq.connection import FrameReceiver
from aiormq.exceptions import AMQPConnectionError, InvalidFrameError, ProtocolSyntaxError
from pamqp import decode
from pamqp.body import ContentBody
from pamqp.commands import Basic
from pamqp.exceptions import PAMQPException
from pamqp.header import ContentHeader

from dispatcher.edges.amqp.tolerant import short_string

CHUNK = 65_536

_FRAME = struct.Struct(">BHI")
_OVERHEAD = _FRAME.size + 1
_END = 0xCE
_METHOD, _HEADER, _BODY = 1, 2, 3
_DELIVER = b"\x00\x3c\x00\x3c"
_CONTENT = struct.Struct(">HHQH")
_LONG_LONG = struct.Struct(">Q")

Frame = tuple[int, int, Any]


def install() -> None:
    """Have aiormq read its connections this way, for the whole process; doing it again changes nothing."""
    aiormq.connection.FrameReceiver = ChunkReceiver  # type: ignore[misc]


class ChunkReceiver(FrameReceiver):
    """Cuts the stream into frames."""

    def __init__(self, reader: asyncio.StreamReader) -> None:
        super().__init__(reader)
        self._buffer = b""
        self._at = 0

    async def get_frame(self) -> Frame:
        """The next frame: its length, its channel and what it says.

        Raises:
            StopAsyncIteration: the stream ended between two frames.
            AMQPConnectionError: the stream broke off.
            InvalidFrameError: the bytes are no frame.
        """
        while True:
            frame = self._cut()
            if frame is not None:
                return frame
            try:
                chunk = await self.reader.read(CHUNK)
            except OSError as error:
                raise AMQPConnectionError(f"Server connection error: {error!r}") from error
            rest = self._buffer[self._at :]
            if not chunk:
                if rest:
                    raise AMQPConnectionError("Server connection unexpectedly closed in the middle of a frame")
                raise StopAsyncIteration
            self._buffer, self._at = rest + chunk, 0
            if not self.started and self._buffer.startswith(b"AMQP"):
                raise ProtocolSyntaxError("Unexpected AMQP protocol header")

    def _cut(self) -> Frame | None:
        """The next whole frame of the buffer, if there is one."""
        buffer, at = self._buffer, self._at
        if len(buffer) - at < _OVERHEAD:
            return None
        kind, channel, size = _FRAME.unpack_from(buffer, at)
        end = at + _OVERHEAD + size
        if len(buffer) < end:
            return None
        if buffer[end - 1] != _END:
            raise InvalidFrameError("a frame does not end where it should")
        self._at = end
        self.started = True
        try:
            return end - at, channel, _read(kind, buffer, at, end)
        except (PAMQPException, struct.error, ValueError, IndexError) as error:
            raise InvalidFrameError(str(error)) from error


def _read(kind: int, buffer: bytes, at: int, end: int) -> Any:
    first = at + _FRAME.size
    if kind == _BODY:
        return ContentBody(buffer[first : end - 1])
    if kind == _HEADER:
        return _header(buffer[first : end - 1])
    if kind == _METHOD and buffer[first : first + 4] == _DELIVER:
        return _deliver(buffer[first + 4 : end - 1])
    return pamqp.frame.unmarshal(buffer[at:end])[2]


def _deliver(data: bytes) -> Basic.Deliver:
    frame = Basic.Deliver.__new__(Basic.Deliver)
    at, frame.consumer_tag = short_string(data)
    (frame.delivery_tag,) = _LONG_LONG.unpack_from(data, at)
    frame.redelivered = bool(data[at + 8] & 1)
    used, frame.exchange = short_string(data[at + 9 :])
    _, frame.routing_key = short_string(data[at + 9 + used :])
    return frame


#: Properties from the highest flag down, as far as messages of ours and of ordinary clients have them.
_PROPERTIES = (
    (1 << 15, "content_type"),
    (1 << 14, "content_encoding"),
    (1 << 13, "headers"),
    (1 << 12, "delivery_mode"),
    (1 << 11, "priority"),
    (1 << 10, "correlation_id"),
    (1 << 9, "reply_to"),
    (1 << 8, "expiration"),
    (1 << 7, "message_id"),
)
_RARE = 0xFFFF & ~sum(flag for flag, _ in _PROPERTIES)
_OCTETS = {"delivery_mode", "priority"}


def _header(data: bytes) -> ContentHeader:
    class_id, weight, size, flags = _CONTENT.unpack_from(data)
    header = ContentHeader(weight, size)
    if flags & _RARE:
        header.unmarshal(data)
        return header
    header.class_id = class_id
    properties = header.properties
    at = _CONTENT.size
    for flag, name in _PROPERTIES:
        if not flags & flag:
            continue
        if name == "headers":
            used, value = decode.by_type(data[at:], "table")
        elif name in _OCTETS:
            used, value = 1, data[at]
        else:
            used, value = short_string(data[at:])
        setattr(properties, name, value)
        at += used
    return header
