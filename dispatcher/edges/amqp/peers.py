"""Questions to every other process of a kind, or to a queue's consumer, and their answers.

Nothing is kept, and nobody has to be there.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import time
import uuid
from collections.abc import Callable

from aio_pika.abc import AbstractConnection
from aiormq.abc import DeliveredMessage
from aiormq.channel import Channel
from pamqp.commands import Basic

from dispatcher.edges.amqp.link import Link
from dispatcher.edges.amqp.writing import publish_once


class Peers:
    """Asks whoever else listens at a fanout exchange, and answers them.

    On a connection of its own: an alarm of the broker blocks a connection that publishes, and those that work must
    go on consuming.

    Args:
        url, name, heartbeat: of the connection.
        exchange: a fanout exchange, declared.
        answer: makes the answer to a question; None where there is nothing to say.
    """

    def __init__(
        self,
        url: str,
        name: str,
        exchange: str,
        answer: Callable[[bytes], bytes | None],
        *,
        heartbeat: int = 30,
    ) -> None:
        self._exchange = exchange
        self._answer = answer
        self._channel: Channel | None = None
        self._link = Link(url, f"{name} peers", self._setup, heartbeat)
        self._numbers = itertools.count(1)
        self._asked: dict[str, Callable[[bytes], None]] = {}
        self._queue = ""
        #: Names this process among its peers.
        self.id = f"{exchange}.{uuid.uuid4().hex}"

    @property
    def ready(self) -> bool:
        """Whether questions can be asked now."""
        return self._link.ready

    async def start(self) -> None:
        """Begin to connect, in the background."""
        self._link.start()

    async def close(self) -> None:
        """Close the connection; questions are not answered any more."""
        await self._link.close()

    async def _setup(self, connection: AbstractConnection) -> None:
        channel = self._channel = await self._link.channel(connection, publisher_confirms=False)
        # goes with the connection, which the broker may notice late: each has a queue of its own
        self._queue = f"{self.id}.{next(self._numbers)}"
        await channel.queue_declare(self._queue, exclusive=True, arguments={"x-queue-type": "classic"})
        await channel.queue_bind(self._queue, self._exchange)
        await channel.basic_consume(self._queue, self._heard, no_ack=True)

    async def ask(self, question: bytes, wait: float) -> list[bytes]:
        """Ask all others; returns the answers that came within ``wait`` seconds."""
        number, answers = str(next(self._numbers)), list[bytes]()
        self._asked[number] = answers.append
        try:
            if await self._send(question, self._exchange, "", number, self._queue):
                await asyncio.sleep(wait)
        finally:
            del self._asked[number]
        return answers

    async def ask_consumer(self, queue: str, question: bytes, wait: float, every: float) -> bool:
        """Ask whoever consumes a queue, again and again; returns whether an answer came within ``wait`` seconds."""
        number, answered = str(next(self._numbers)), asyncio.Event()
        self._asked[number] = lambda _: answered.set()
        deadline = time.monotonic() + wait
        try:
            while not answered.is_set() and (left := deadline - time.monotonic()) > 0:
                await self._send(question, "", queue, number, self._queue)
                with contextlib.suppress(TimeoutError):
                    await asyncio.wait_for(answered.wait(), min(every, left))
        finally:
            del self._asked[number]
        return answered.is_set()

    async def _heard(self, message: DeliveredMessage) -> None:
        properties = message.header.properties
        asker, number = properties.reply_to, properties.correlation_id or ""
        if asker is None:
            if number in self._asked:
                self._asked[number](bytes(message.body))
        elif asker != self._queue and asker.startswith(self._exchange):
            answer = self._answer(bytes(message.body))
            if answer is not None:
                await self._send(answer, "", asker, number)

    async def _send(self, body: bytes, exchange: str, key: str, number: str, reply_to: str | None = None) -> bool:
        channel = self._channel
        if channel is None or not self._link.ready:
            return False
        properties = Basic.Properties(content_type="application/json", correlation_id=number, reply_to=reply_to)
        return await publish_once(channel, body, exchange, key, properties)
