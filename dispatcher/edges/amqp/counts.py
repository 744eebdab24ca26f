"""How much waits in queues, and who consumes them, asked by passive declarations: nothing is made or changed."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from dataclasses import dataclass

from aio_pika.abc import AbstractChannel, AbstractConnection
from aio_pika.exceptions import AMQPError
from aiormq.channel import Channel
from aiormq.exceptions import ChannelNotFoundEntity

from dispatcher.edges.amqp.link import BrokerError, close, connect, explain

#: Longest wait for the broker's answer, in seconds.
ANSWER_TIMEOUT = 5


@dataclass(frozen=True, slots=True)
class Count:
    """What a queue holds that nobody has taken, and how many consume it."""

    ready: int
    consumers: int


class QueueCounts:
    """Asks on one channel of its own, which is opened when it is needed."""

    def __init__(self, url: str, name: str, heartbeat: int = 30) -> None:
        self._url = url
        self._name = name
        self._heartbeat = heartbeat
        self._connection: AbstractConnection | None = None
        #: A strong reference: a channel that is collected closes.
        self._outer: AbstractChannel | None = None

    async def read(self, queues: Iterable[str]) -> dict[str, Count | None]:
        """The counts of these queues; None for one that the broker does not have.

        Raises:
            BrokerError: the broker is away, or does not answer.
        """
        found: dict[str, Count | None] = {}
        try:
            channel = await self._channel()
            for queue in queues:
                try:
                    answer = await channel.queue_declare(queue, passive=True, timeout=ANSWER_TIMEOUT)
                    found[queue] = Count(answer.message_count or 0, answer.consumer_count or 0)
                except ChannelNotFoundEntity:  # which costs the channel
                    found[queue] = None
                    channel = await self._channel()
        except (AMQPError, OSError, TimeoutError, ValueError, RuntimeError) as error:
            await self.close()
            raise BrokerError(explain(error, self._url)) from None
        except asyncio.CancelledError:
            await self.close()
            raise
        return found

    async def _channel(self) -> Channel:
        if self._connection is None or self._connection.is_closed:
            self._connection, self._outer = await connect(self._url, self._name, self._heartbeat), None
        if self._outer is None or self._outer.is_closed:
            self._outer = self._connection.channel(publisher_confirms=False)
            await self._outer.initialize(timeout=ANSWER_TIMEOUT)
        return await self._outer.get_underlay_channel()  # type: ignore[return-value]

    async def close(self) -> None:
        """Close the connection; the next question opens another."""
        connection, self._connection, self._outer = self._connection, None, None
        if connection is not None:
            await close(connection)
