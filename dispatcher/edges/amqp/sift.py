"""Going through a queue from its head and taking some messages out for good; the others stay, in their places.

Nothing is published: a crash leaves each message where it was, or gone. What is looked at is held unacknowledged and
goes back when it is over, so a replay at the same time may miss it; and the broker counts that as a delivery, which
for messages that nobody consumes means nothing.

The messages are consumed. One by one (``basic.get``) each would be held by a consumer of its own: the broker takes
longer the more there are, and puts them back in any order. A long queue takes several consumers, one after the other;
what they hold goes back in the order of their turns, once all of them are cancelled.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from aio_pika.abc import AbstractConnection
from aiormq.abc import DeliveredMessage
from aiormq.channel import Channel

from dispatcher.edges.amqp.link import brief_connection, open_channel

#: Says of a message, by its headers and body, whether it goes.
Goes = Callable[[Mapping[str, Any], bytes], bool]
#: Most messages that one consumer holds: the more it holds, the longer the broker takes for each (50,000: four times).
HELD = 10_000
#: Seconds without a message after which the queue is taken to be empty: somebody else took what was there.
IDLE = 5.0
#: Longest wait for the broker to put messages back, unless somebody else takes them, and time between two looks.
BACK, LOOK = 5.0, 0.02
#: Longest wait for an answer of the broker, in seconds.
ANSWER_TIMEOUT = 30


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
        BrokerError: the broker is away, or there is no such queue. What goes may be gone, the rest is there.
    """
    async with brief_connection(url, f"sift {queue}") as connection:
        _outer, channel = await open_channel(connection)
        declared = await channel.queue_declare(queue, passive=True, timeout=ANSWER_TIMEOUT)
        sifting = _Sifting(goes, most, stays, watch, declared.message_count or 0)
        turns: list[_Turn] = []
        while not sifting.over:
            turns.append(_Turn(sifting))
            if not await turns[-1].run(connection, queue):
                break
        for turn in turns:
            await turn.close()
        await _all_back(channel, queue, sifting.total - sifting.taken)
        return Sifted(sifting.seen, sifting.taken, sifting.enough and sifting.seen < sifting.total)


async def _all_back(channel: Channel, queue: str, count: int) -> None:
    """Wait until the broker has put back what stays: who came in between would find the queue in another order."""
    deadline = asyncio.get_running_loop().time() + BACK
    while asyncio.get_running_loop().time() < deadline:
        declared = await channel.queue_declare(queue, passive=True, timeout=ANSWER_TIMEOUT)
        if (declared.message_count or 0) >= count:
            return
        await asyncio.sleep(LOOK)


class _Sifting:
    """What was decided so far."""

    def __init__(self, goes: Goes, most: int | None, stays: int | None, watch: Any, total: int) -> None:
        self._goes = goes
        self._most = most
        self._stays = stays
        self._watch = watch
        self.total = total
        self.delivered = self.seen = self.taken = 0

    @property
    def enough(self) -> bool:
        """Whether as many were taken out as may be."""
        return self._most is not None and self.taken >= self._most

    @property
    def over(self) -> bool:
        """Whether no more are looked at."""
        stayed = self._stays is not None and self.seen - self.taken >= self._stays
        return self.enough or stayed or self.seen >= self.total

    @property
    def left(self) -> int:
        """Most messages that may have to be looked at still."""
        left = self.total - self.seen
        if self._most is None or self._stays is None:
            return left
        return min(left, self._most + self._stays - self.seen)

    def goes(self, headers: Mapping[str, Any], body: bytes) -> bool:
        """Decide about the next message."""
        going = self._goes(headers, body)
        self.seen += 1
        self.taken += going
        if self._watch is not None:
            self._watch(self.seen, self.total)
        return going


class _Turn:
    """One consumer: it holds what stays, up to its prefetch.

    It is cancelled when everything that it is owed has come: what is on its way to a cancelled consumer would go back
    before what that one holds. Each acknowledgement has the broker deliver one message more, so by then the broker
    has dealt with them all; it forgets those that it has not when their channel closes. At the end of the queue, where
    nothing more can come, it deals with them before it answers to the cancellation.
    """

    def __init__(self, sifting: _Sifting) -> None:
        self._sifting = sifting
        self._owed = self._prefetch = min(sifting.left, HELD)
        self._outer: Any = None  # a strong reference: a channel that is collected closes
        self._going: list[int] = []
        self._arrived = asyncio.Event()
        self._failed: Exception | None = None

    async def run(self, connection: AbstractConnection, queue: str) -> bool:
        """Look at messages until all is decided or what stays is as much as it holds; False where no more come."""
        self._outer, channel = await open_channel(connection)
        await channel.basic_qos(prefetch_count=self._prefetch, timeout=ANSWER_TIMEOUT)
        consuming = await channel.basic_consume(queue, self._take, timeout=ANSWER_TIMEOUT)
        came = await self._all_came(channel)
        while came and self._going:
            going, self._going = self._going, []
            self._owed = min(len(going), self._sifting.total - self._sifting.delivered)
            for tag in going:
                await channel.basic_ack(tag)
            came = await self._all_came(channel)
        await channel.basic_cancel(consuming.consumer_tag or "", timeout=ANSWER_TIMEOUT)
        if self._failed is not None:
            raise self._failed
        return came

    async def _all_came(self, channel: Channel) -> bool:
        """Wait for what is owed; False where it does not come."""
        while self._owed > 0:
            try:
                async with asyncio.timeout(IDLE):
                    await self._arrived.wait()
            except TimeoutError:
                if channel.is_closed:
                    raise ConnectionResetError("the connection was lost") from None
                return False
            self._arrived.clear()
        return True

    async def _take(self, message: DeliveredMessage) -> None:
        self._owed -= 1
        self._sifting.delivered += 1
        self._arrived.set()
        if self._sifting.over or self._failed is not None:
            return  # it goes back with the others
        try:
            if self._sifting.goes(message.header.properties.headers or {}, bytes(message.body)):
                self._going.append(int(message.delivery_tag or 0))
        except Exception as error:  # the caller's; it is raised where the caller is
            self._failed = error

    async def close(self) -> None:
        """Give back what stays."""
        await self._outer.close()
