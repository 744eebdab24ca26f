"""Handing frames to a connection's writer, without waiting for one that has ended."""

from __future__ import annotations

import asyncio

from aiormq.abc import ChannelFrame
from aiormq.channel import Channel

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
