"""Going through a queue from its head and taking some messages out for good; the others stay, in their places.

Nothing is published: a crash leaves each message where it was, or gone. What is looked at is held unacknowledged and
goes back when the connection closes, so a replay at the same time may miss it; and the broker counts that as a
delivery, which for messages that nobody consumes means nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from aio_pika.exceptions import AMQPError
from pamqp.commands import Basic

from dispatcher.edges.amqp.link import BrokerError, connect, explain

#: Says of a message, by its headers and body, whether it goes.
Goes = Callable[[Mapping[str, Any], bytes], bool]


@dataclass(frozen=True, slots=True)
class Sifted:
    """How many messages were looked at and taken out; ``more``: whether the limit on what is taken was reached."""

    seen: int
    taken: int
    more: bool


async def sift(
    url: str, queue: str, goes: Goes, *, most: int | None = None, stays: int | None = None, watch: Any = None
) -> Sifted:
    """Look at what the queue holds now and take out what goes.

    Args:
        url: the broker.
        queue: the queue.
        goes: which messages.
        most: at most so many are taken out; None: all.
        stays: end at so many that stay, where the oldest are first; None: go through all.
        watch: called with how many were seen and how many there are, after each message.

    Raises:
        BrokerError: the broker is away, or there is no such queue.
    """
    try:
        connection = await connect(url, f"dispatcher sift {queue}")
    except (AMQPError, OSError, TimeoutError, ValueError) as error:
        raise BrokerError(explain(error, url)) from None
    try:
        outer = connection.channel(publisher_confirms=False)
        await outer.initialize()
        channel = await outer.get_underlay_channel()
        return await _through(channel, queue, goes, most, stays, watch)
    except AMQPError as error:
        raise BrokerError(explain(error, url)) from None
    finally:
        await connection.close()


async def _through(channel: Any, queue: str, goes: Goes, most: int | None, stays: int | None, watch: Any) -> Sifted:
    total = (await channel.queue_declare(queue, passive=True)).message_count or 0
    seen = taken = 0
    while seen < total and (stays is None or seen - taken < stays):
        if most is not None and taken >= most:
            return Sifted(seen, taken, True)
        message = await channel.basic_get(queue)
        if isinstance(message.delivery, Basic.GetEmpty):
            break
        seen += 1
        if goes(message.header.properties.headers or {}, bytes(message.body)):
            await channel.basic_ack(message.delivery.delivery_tag)
            taken += 1
        if watch is not None:
            watch(seen, total)
    return Sifted(seen, taken, False)
