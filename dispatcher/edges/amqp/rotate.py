"""Going once through a queue: some messages are replaced, the others go to its tail.

Never by nack: that would count as a failed delivery of the messages that were not chosen.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from aiormq.abc import DeliveredMessage
from pamqp.commands import Basic

from dispatcher.edges.amqp.link import BrokerError, connect
from dispatcher.edges.amqp.publisher import Outgoing, Publisher

#: Headers that a parked message may carry; everything else there is the broker's.
OUR_HEADERS = ("traceparent", "tracestate", "x-error")


async def rotate(
    url: str, queue: str, publisher: Publisher, replace: Callable[[bytes], Sequence[Outgoing] | None]
) -> int:
    """Look at every message that the queue holds now; returns how many were replaced.

    Each message is acknowledged once what replaces it (or its copy at the tail) is confirmed: a crash in between
    leaves a message twice, never not at all.

    Args:
        url: the broker.
        queue: the queue.
        publisher: publishes replacements and copies.
        replace: from a body to the messages that replace it; None keeps it.

    Raises:
        BrokerError: no queue takes a replacement.
    """
    connection = await connect(url, f"dispatcher rotate {queue}")
    try:
        outer = connection.channel(publisher_confirms=False)
        await outer.initialize()
        channel = await outer.get_underlay_channel()
        declared = await channel.queue_declare(queue, passive=True)
        replaced = 0
        for _ in range(declared.message_count or 0):
            message = await channel.basic_get(queue)
            if isinstance(message.delivery, Basic.GetEmpty):
                break
            body = bytes(message.body)
            replacement = replace(body)
            replaced += replacement is not None
            if await publisher.publish(replacement if replacement is not None else [_copy(queue, body, message)]):
                raise BrokerError("a queue is missing: run `dispatcher topology apply`; nothing was taken out")
            await channel.basic_ack(message.delivery.delivery_tag)  # type: ignore[arg-type,union-attr]
        return replaced
    finally:
        await connection.close()


def _copy(queue: str, body: bytes, message: DeliveredMessage) -> Outgoing:
    headers = message.header.properties.headers or {}
    ours = {name: value for name, value in headers.items() if name in OUR_HEADERS}
    return Outgoing("", queue, body, ours or None)
