"""Handing frames to a connection's writer, without waiting for one that has ended."""

from __future__ import annotations

import asyncio

from aiormq.abc import ChannelFrame
from aiormq.channel import Channel
from aiormq.exceptions import AMQPError
from pamqp.commands import Basic

from dispatcher.edges import log

_logger = log.get("amqp")

#: Longest wait for room in the writer's queue, in seconds. It holds few frames, but they leave it at once.
WRITE_TIMEOUT = 10.0


async def write(channel: Channel, frames: bytes) -> None:
    """Queue frames, in one piece, for the writer of the channel's connection.

    Nobody empties that queue once the connection is closing: who waits for room in it alone waits for ever.

    Raises:
        ConnectionError: the connection ended, or its writer stands still; the frames were not taken.
    """
    queue, frame = channel.write_queue, ChannelFrame(frames, should_close=False)
    try:
        queue.put_nowait(frame)
    except asyncio.QueueFull:
        await _wait_for_room(channel, frame)


async def _wait_for_room(channel: Channel, frame: ChannelFrame) -> None:
    put = asyncio.ensure_future(channel.write_queue.put(frame))
    closing = channel.connection.closing
    try:
        await asyncio.wait({put, closing}, timeout=WRITE_TIMEOUT, return_when=asyncio.FIRST_COMPLETED)
        if not put.done():
            raise ConnectionResetError("the connection took no frames any more")
    finally:
        put.cancel()
        closing.cancel()


async def publish_once(
    channel: Channel, body: bytes, exchange: str, routing_key: str, properties: Basic.Properties
) -> bool:
    """Publish without a confirm; whether it was handed to the connection. Nobody knows whether it arrives."""
    try:
        async with asyncio.timeout(WRITE_TIMEOUT):
            await channel.basic_publish(
                body, exchange=exchange, routing_key=routing_key, properties=properties, wait=False
            )
    except (AMQPError, OSError, RuntimeError) as error:
        _logger.info("not sent", error=type(error).__name__)
        return False
    return True
