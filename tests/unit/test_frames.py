"""Our frame encoder and decoder say exactly what pamqp's say."""

from __future__ import annotations

import asyncio
from typing import Any

import pamqp.frame
import pytest
from aiormq.exceptions import AMQPConnectionError, InvalidFrameError, ProtocolSyntaxError
from hypothesis import given, settings
from hypothesis import strategies as st
from pamqp.body import ContentBody
from pamqp.commands import Basic
from pamqp.header import ContentHeader
from pamqp.heartbeat import Heartbeat

from dispatcher.edges.amqp.frames import ack_frames, give_back_frame, publish_frames
from dispatcher.edges.amqp.receiver import ChunkReceiver

FRAME_MAX = 4096

short = st.text(st.characters(codec="utf-8", exclude_categories=["Cs"], min_codepoint=1), min_size=1, max_size=60)
tables = st.dictionaries(
    st.text("abcxyz-", min_size=1, max_size=20), st.one_of(short, st.integers(0, 2**31)), max_size=4
)


def frames_of(data: bytes) -> list[Any]:
    """Decode with pamqp."""
    found = []
    while data:
        used, channel, frame = pamqp.frame.unmarshal(data)
        assert channel == 3
        found.append(frame)
        data = data[used:]
    return found


@settings(max_examples=200, deadline=None)
@given(
    routing_key=short,
    body=st.binary(max_size=10_000),
    headers=st.none() | tables,
    correlation_id=st.none() | short,
    reply_to=st.none() | short,
    lifetime_ms=st.none() | st.integers(0, 2**40),
)
def test_a_publish_reads_as_what_was_meant(
    routing_key: str,
    body: bytes,
    headers: dict[str, Any] | None,
    correlation_id: str | None,
    reply_to: str | None,
    lifetime_ms: int | None,
) -> None:
    """Method, header and body frames, each within the frame limit."""
    data = publish_frames(
        3, FRAME_MAX, "exchange", routing_key, body, "m1",
        headers=headers, correlation_id=correlation_id, reply_to=reply_to, lifetime_ms=lifetime_ms,
    )  # fmt: skip
    method, header, *parts = frames_of(data)
    assert (method.exchange, method.routing_key, method.mandatory) == ("exchange", routing_key, True)
    assert header.body_size == len(body)
    assert b"".join(part.value for part in parts) == body
    assert all(len(part.value) + 8 <= FRAME_MAX for part in parts)
    properties = header.properties
    assert (properties.content_type, properties.delivery_mode) == ("application/json", 2)
    assert (properties.message_id, properties.correlation_id) == ("m1", correlation_id)
    assert properties.reply_to == reply_to
    assert properties.expiration == (None if lifetime_ms is None else str(lifetime_ms))
    assert (properties.headers or {}) == (headers or {})


def test_acknowledgements_read_as_what_was_meant() -> None:
    """A prefix with ``multiple``, then each tag alone."""
    acks = [(frame.delivery_tag, frame.multiple) for frame in frames_of(ack_frames(3, 2**40, (7, 9)))]
    assert acks == [(2**40, True), (7, False), (9, False)]
    assert ack_frames(3, None, ()) == b""


def test_giving_back_reads_as_what_was_meant() -> None:
    """One message, to its queue, and none before it."""
    (frame,) = frames_of(give_back_frame(3, 7))
    assert isinstance(frame, Basic.Nack)
    assert (frame.delivery_tag, frame.multiple, frame.requeue) == (7, False, True)


def test_a_name_that_is_too_long_is_refused() -> None:
    """AMQP's short strings hold 255 bytes, not characters."""
    with pytest.raises(ValueError, match="255 bytes"):
        publish_frames(1, FRAME_MAX, "", "é" * 128, b"", "m")


def sample_frames() -> list[Any]:
    """What a broker sends, in every shape that we read by hand, and some that we leave to pamqp."""
    full = Basic.Properties(
        content_type="a/b", content_encoding="gzip", headers={"x-api-key": "k", "n": 7}, delivery_mode=2, priority=5,
        correlation_id="c", reply_to="r", expiration="1000", message_id="m",
    )  # fmt: skip
    rare = Basic.Properties(content_type="a/b", app_id="app", message_type="t", user_id="u")
    return [
        Basic.Deliver("queue", 2**40, True, "jobs", "email.send"),
        ContentHeader(0, 5, full),
        ContentBody(b"hello"),
        Heartbeat(),
        Basic.Deliver("queue", 1, False, "", "é"),
        ContentHeader(0, 0, Basic.Properties()),
        ContentHeader(0, 3, rare),
        ContentBody(b"\x00\xce\xff"),
        Basic.Ack(7, True),
        Basic.ConsumeOk("tag"),
    ]


def seen(frame: Any) -> Any:
    """A frame's content, for comparison."""
    if isinstance(frame, ContentHeader):
        return (frame.class_id, frame.weight, frame.body_size, dict(frame.properties))
    if isinstance(frame, (ContentBody, Heartbeat)):
        return (type(frame), getattr(frame, "value", None))
    return (type(frame), dict(frame))


async def received(data: bytes, cuts: list[int]) -> list[Any]:
    """Feed the bytes in pieces; returns (length, channel, content) of each frame."""
    reader = asyncio.StreamReader()
    receiver = ChunkReceiver(reader)

    async def feed() -> None:
        last = 0
        for cut in [*cuts, len(data)]:
            reader.feed_data(data[last:cut])
            last = cut
            await asyncio.sleep(0)
        reader.feed_eof()

    feeding = asyncio.create_task(feed())
    found = [(size, channel, seen(frame)) async for size, channel, frame in receiver]
    await feeding
    return found


@settings(max_examples=100, deadline=None)
@given(st.data())
def test_frames_are_read_as_pamqp_reads_them(data: st.DataObject) -> None:
    """However the stream is cut."""
    frames = sample_frames()
    encoded = [pamqp.frame.marshal(frame, 0 if isinstance(frame, Heartbeat) else 3) for frame in frames]
    stream = b"".join(encoded)
    cuts = sorted(data.draw(st.lists(st.integers(0, len(stream)), max_size=12)))
    expected = []
    for part in encoded:
        size, channel, frame = pamqp.frame.unmarshal(part)
        expected.append((size, channel, seen(frame)))
    assert asyncio.run(received(stream, cuts)) == expected


async def test_a_broken_stream_is_an_error() -> None:
    """Ending inside a frame, a wrong end byte, another protocol: each has its error."""
    whole = pamqp.frame.marshal(Basic.Ack(1), 3)
    with pytest.raises(AMQPConnectionError):
        await received(whole[:-2], [])
    with pytest.raises(InvalidFrameError):
        await received(whole[:-1] + b"\x00", [])
    with pytest.raises(ProtocolSyntaxError):
        await received(b"AMQP\x00\x00\x09\x01", [])
    with pytest.raises(InvalidFrameError):
        await received(b"\x01\x00\x03\x00\x00\x00\x04\x00\x3c\x00\x3c\xce", [])
