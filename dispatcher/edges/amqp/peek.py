"""Looking at the first messages of a queue, which stay there."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from aio_pika.exceptions import AMQPError
from pamqp.commands import Basic

from dispatcher.edges.amqp.link import BrokerError, connect, explain


@dataclass(frozen=True, slots=True)
class Peeked:
    """A message as it lies in its queue."""

    headers: dict[str, Any]
    body: bytes


async def peek(url: str, queue: str, limit: int) -> list[Peeked]:
    """The first messages of a queue, at most ``limit``; they go back unchanged.

    Raises:
        BrokerError: the broker is away, or there is no such queue.
    """
    try:
        connection = await connect(url, f"dispatcher peek {queue}")
    except (AMQPError, OSError, TimeoutError, ValueError) as error:
        raise BrokerError(explain(error, url)) from None
    try:
        outer = connection.channel(publisher_confirms=False)
        await outer.initialize()
        channel = await outer.get_underlay_channel()
        found: list[Peeked] = []
        while len(found) < limit:
            message = await channel.basic_get(queue)
            if isinstance(message.delivery, Basic.GetEmpty):
                break
            found.append(Peeked(dict(message.header.properties.headers or {}), bytes(message.body)))
        return found
    except AMQPError as error:
        raise BrokerError(explain(error, url)) from None
    finally:
        # nothing was acknowledged: the broker puts all of it back in its place
        await connection.close()
