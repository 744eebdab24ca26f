"""Publishing on the connection on which what is replaced was delivered, and on no other.

As long as that connection stands, the messages delivered on it are its consumer's alone. When the broker has given it
up, and its messages to another consumer, nothing can be published on it any more: a process that stood still meanwhile
publishes nothing, whatever it believes.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

from dispatcher.edges.amqp.consumer import Consumer
from dispatcher.edges.amqp.publisher import MAX_PAUSE, PAUSE, Meter, Outgoing, Publisher, marked_again


class ConnectionLost(Exception):
    """The connection is gone: what was being published replaces nothing that is still its consumer's."""


class BoundPublisher(Publisher):
    """Publishes on a consumer's connection, which it does not open or close.

    Args:
        consumer: whose connection it is; not started yet.
        timeout, meter: as for `Publisher`.
    """

    def __init__(self, consumer: Consumer, *, timeout: float = 30, meter: Meter | None = None) -> None:
        super().__init__("", "", timeout=timeout, meter=meter, link=consumer.link)
        consumer.beside = (self._setup, self._lost)

    async def start(self) -> None:
        """The consumer connects."""

    async def close(self) -> None:
        """The consumer closes the connection."""

    async def publish(self, messages: Sequence[Outgoing]) -> list[int]:
        """Publish all, persistent and mandatory, until the broker confirmed each, or the connection is gone.

        Returns:
            The indexes of those that no queue took.

        Raises:
            ConnectionLost: the connection went, before or while they were published; they may be there, or not.
        """
        channel = self._channel
        messages = list(messages)
        waiting = list(range(len(messages)))
        returned: list[int] = []
        pause = PAUSE
        while waiting:
            await self.wait_ready()  # an alarm may last; and the first members come while the connection is set up
            if self._channel is not channel:
                raise ConnectionLost(f"{len(waiting)} messages were not published")
            batch = await self._send([messages[i] for i in waiting], channel)
            returned += [waiting[i] for i in batch.returned]
            waiting = [waiting[i] for i in sorted(batch.open)]
            if waiting and self._channel is not channel:
                raise ConnectionLost(f"{len(waiting)} messages were not confirmed")
            if waiting:  # the broker refused them
                self.unknown += len(waiting)
                if self._meter is not None:
                    self._meter.again(len(waiting))
                for i in waiting:
                    messages[i] = marked_again(messages[i])
                await asyncio.sleep(pause)
                pause = min(2 * pause, MAX_PAUSE)
        return sorted(returned)
