"""Publishing with confirms: a call returns when the broker has every message, whatever happens in between."""

from __future__ import annotations

import asyncio
import itertools
import os
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any, Protocol

from aio_pika.abc import AbstractConnection
from aiormq.abc import DeliveredMessage
from aiormq.channel import Channel
from aiormq.exceptions import PublishError
from pamqp.commands import Basic

from dispatcher.core.timing import Route
from dispatcher.edges import log
from dispatcher.edges.amqp.alarm import Alarm
from dispatcher.edges.amqp.frames import publish_frames
from dispatcher.edges.amqp.link import Link
from dispatcher.edges.amqp.writing import publish_once, write

_logger = log.get("amqp")
#: Marks what may be in its queue already: its publish before had no answer, or what it follows from came again.
AGAIN_HEADER = "x-again"
#: The broker's pseudo-queue for replies to one channel.
REPLY_TO = "amq.rabbitmq.reply-to"
#: Pause before what was not confirmed is published again, in seconds; it doubles as long as the broker refuses.
PAUSE, MAX_PAUSE = 0.05, 5.0


@dataclass(frozen=True, slots=True)
class Outgoing:
    """A message to publish, persistent; ``exchange`` "" is the default exchange.

    ``leaves_at`` (seconds of the monotonic clock) is when it is to leave the queue that it is published to, whenever
    the publish gets through: the time until then becomes its ``expiration``.
    """

    exchange: str
    routing_key: str
    body: bytes
    headers: dict[str, Any] | None = None
    correlation_id: str | None = None
    reply_to: str | None = None
    leaves_at: float | None = None


def routed(route: Route, body: bytes, headers: dict[str, Any] | None = None) -> Outgoing:
    """The message that carries a step there; its stay in the delay ladder begins now."""
    leaves_at = None if route.stay_ms is None else time.monotonic() + route.stay_ms / 1000
    return Outgoing(route.exchange, route.routing_key, body, headers, leaves_at=leaves_at)


def marked_again(message: Outgoing) -> Outgoing:
    """The message with the header which says that it may be in its queue already."""
    return replace(message, headers={**(message.headers or {}), AGAIN_HEADER: True})


class Meter(Protocol):
    """Where a publisher tells how it fares."""

    def answered(self, seconds: float) -> None:
        """The broker answered a whole batch."""

    def again(self, messages: int) -> None:
        """So many messages are to be published once more."""

    def blocked(self, change: int) -> None:
        """The broker began (1) or ceased (-1) to block the connection."""


class _Batch:
    """Messages that were published together: the indexes of those still open, and of those returned."""

    def __init__(self, size: int) -> None:
        self._size = size
        self._answered = 0
        self.open = set(range(size))
        self.returned: list[int] = []
        #: Negative confirms: a queue of the broker does not work.
        self.refused = 0
        #: Set when nothing is open any more, or when the connection was lost.
        self.done = asyncio.Event()
        if not size:
            self.done.set()

    def settle(self, index: int, error: BaseException | None) -> None:
        """The broker answered; an error other than a return (a negative confirm) leaves the message open."""
        if error is None or isinstance(error, PublishError):
            self.open.discard(index)
            if error is not None:
                self.returned.append(index)
        else:
            self.refused += 1
        self._answered += 1
        if self._answered == self._size:
            self.done.set()


class _Confirm:
    """Stands where aiormq keeps a future for each publish: it is asked and told the same, but needs no loop."""

    __slots__ = ("_batch", "_index", "_message_id", "_message_ids", "_settled")

    def __init__(self, batch: _Batch, index: int, message_ids: dict[str, int], message_id: str) -> None:
        self._batch = batch
        self._index = index
        self._message_ids = message_ids
        self._message_id = message_id
        self._settled = False

    def done(self) -> bool:
        """Whether the broker answered."""
        return self._settled

    def cancelled(self) -> bool:
        """Never: a publish that is given up is still counted."""
        return False

    def set_result(self, _: Any) -> None:
        """The broker confirmed."""
        self._settle(None)

    def set_exception(self, error: BaseException) -> None:
        """The broker returned the message, or refused it."""
        self._settle(error)

    def _settle(self, error: BaseException | None) -> None:
        self._settled = True
        self._message_ids.pop(self._message_id, None)
        self._batch.settle(self._index, error)


class Publisher:
    """Publishes on a connection of its own, because an alarm of the broker blocks a whole connection.

    Args:
        url, name, heartbeat: of the connection.
        timeout: seconds after which a publish without an answer is unknown; the time of an alarm does not count.
        on_reply: called with correlation id and body of each reply to what is published here.
        meter: is told of answers; a client's program measures nothing of ours.
        link: a connection of somebody else's to publish on, who sets it up; by default one of its own.
    """

    def __init__(
        self,
        url: str,
        name: str,
        *,
        timeout: float = 30,
        heartbeat: int = 30,
        on_reply: Callable[[str | None, bytes], None] | None = None,
        meter: Meter | None = None,
        link: Link | None = None,
    ) -> None:
        self._timeout = timeout
        self._meter = meter
        self._on_reply = on_reply
        self._channel: Channel | None = None
        self._plain: Channel | None = None
        self._link = link or Link(url, f"{name} publisher", self._setup, heartbeat, self._lost)
        self._alarm = Alarm(self._link.name, meter.blocked) if meter else Alarm(self._link.name)
        self._batches: set[_Batch] = set()
        self._writing = asyncio.Lock()
        # a return is matched by message id, which must be unique among the channel's in-flight publishes
        self._message_ids = map(f"{os.getpid():x}-{{:x}}".format, itertools.count(1))
        #: Publishes whose outcome was unknown and that were sent again.
        self.unknown = 0

    @property
    def ready(self) -> bool:
        """Whether the connection is usable now: it stands, and the broker does not block it."""
        return self._link.ready and self._alarm.over.is_set()

    @property
    def problem(self) -> str:
        """Why the connection is, or last was, not usable."""
        if reason := self._alarm.reason:
            return f"RabbitMQ takes no messages until its alarm is over: {reason}"
        return self._link.problem

    async def start(self) -> None:
        """Begin to connect, in the background."""
        self._link.start()

    async def close(self) -> None:
        """Close the connection. What is being published is given up."""
        await self._link.close()

    def _lost(self) -> None:
        """The connection is gone: what was not answered will not be."""
        self._channel = None
        self._alarm.forget()
        for batch in self._batches:
            batch.done.set()

    async def wait_ready(self) -> None:
        """Wait until the connection is usable."""
        while not self.ready:
            await self._link.up.wait()
            await self._alarm.over.wait()

    async def _setup(self, connection: AbstractConnection) -> None:
        confirming = await self._link.channel(connection, publisher_confirms=True, on_return_raises=True)
        self._plain = await self._link.channel(connection, publisher_confirms=False)
        self._channel = confirming
        self._alarm.follow(confirming.connection)
        if self._on_reply is not None:
            # direct reply-to: the replies to what is published on this channel
            await confirming.basic_consume(REPLY_TO, self._reply, no_ack=True)

    async def _reply(self, message: DeliveredMessage) -> None:
        if self._on_reply is not None:
            self._on_reply(message.header.properties.correlation_id, bytes(message.body))

    async def publish(self, messages: Sequence[Outgoing]) -> list[int]:
        """Publish all, persistent and mandatory, until the broker confirmed each.

        A publish that timed out or was cut off is unknown and is sent again, so a duplicate is possible and a loss
        is not; it is marked. Waits as long as the broker is away, or has an alarm.

        Returns:
            The indexes of those that no queue took: the broker returned them, and nothing holds them now.

        Raises:
            ValueError: a routing key or property is longer than AMQP allows.
        """
        messages = list(messages)
        waiting = list(range(len(messages)))
        returned: list[int] = []
        pause = PAUSE
        while waiting:
            await self.wait_ready()
            batch = await self._send([messages[i] for i in waiting])
            returned += [waiting[i] for i in batch.returned]
            waiting = [waiting[i] for i in sorted(batch.open)]
            if waiting:
                self.unknown += len(waiting)
                if self._meter is not None:
                    self._meter.again(len(waiting))
                _logger.warning(
                    "publishing again",
                    connection=self._link.name,
                    messages=len(waiting),
                    reason="the broker refused" if batch.refused else "no answer",
                    first=messages[waiting[0]].routing_key,
                )
                for i in waiting:
                    messages[i] = marked_again(messages[i])
                await asyncio.sleep(pause)
                pause = min(2 * pause, MAX_PAUSE) if batch.refused else PAUSE
        return sorted(returned)

    async def _send(self, messages: Sequence[Outgoing], only_on: Channel | None = None) -> _Batch:
        """Publish once, on no other channel where one is given; what stays open in the batch is unknown."""
        batch = _Batch(len(messages))
        self._batches.add(batch)
        began = time.monotonic()
        try:
            await self._write(messages, batch, only_on)
            if not await self._answered(batch):
                self._link.drop(f"no confirm within {self._timeout:g} s")
            elif self._meter is not None and not batch.open:
                self._meter.answered(time.monotonic() - began)
        finally:
            self._batches.discard(batch)
        return batch

    async def _answered(self, batch: _Batch) -> bool:
        """Wait for every answer, or the loss of the connection; False if neither came within the timeout.

        What the broker does not read it will read after its alarm: to send it again would only double it.
        """
        while not batch.done.is_set():
            await self._alarm.over.wait()
            alarms = self._alarm.count
            try:
                async with asyncio.timeout(self._timeout):
                    await batch.done.wait()
            except TimeoutError:
                if self._alarm.count == alarms:
                    return False
        return True

    async def _write(self, messages: Sequence[Outgoing], batch: _Batch, only_on: Channel | None) -> None:
        """Hand the frames of all messages to the connection at once, and await a confirm for each."""
        async with self._writing:  # delivery tags count in the order of the frames
            channel = self._channel
            # a batch given up while it waited here is sent by its next turn, not by this one as well
            given_up = batch.done.is_set() or (only_on is not None and channel is not only_on)
            if given_up or channel is None or channel.is_closed or not self._link.ready:
                batch.done.set()
                return
            payload = self._encode(channel, messages, batch)
            try:
                await write(channel, payload)
            except ConnectionError as error:
                self._link.drop(str(error))
                batch.done.set()
            except BaseException:
                # tags were counted whose frames may not follow: the channel cannot be used any further
                self._link.drop("publishing was interrupted")
                raise

    def _encode(self, channel: Channel, messages: Sequence[Outgoing], batch: _Batch) -> bytes:
        frame_max = channel.connection.connection_tune.frame_max
        now, encoded = time.monotonic(), []
        for message in messages:
            message_id = next(self._message_ids)
            frames = publish_frames(
                channel.number,
                frame_max,
                message.exchange,
                message.routing_key,
                message.body,
                message_id,
                headers=message.headers,
                correlation_id=message.correlation_id,
                reply_to=message.reply_to,
                lifetime_ms=None if message.leaves_at is None else max(int((message.leaves_at - now) * 1000), 0),
            )
            encoded.append((message_id, frames))
        for index, (message_id, _) in enumerate(encoded):
            channel.delivery_tag += 1
            confirm = _Confirm(batch, index, channel.message_id_delivery_tag, message_id)
            channel.confirmations[channel.delivery_tag] = confirm  # type: ignore[assignment]
            channel.message_id_delivery_tag[message_id] = channel.delivery_tag
        return b"".join(frames for _, frames in encoded)

    async def send(self, message: Outgoing) -> None:
        """Publish once, transient, without confirm and without knowing whether it arrived (replies)."""
        channel = self._plain
        if channel is None or not self._link.ready:
            return
        properties = Basic.Properties(content_type="application/json", correlation_id=message.correlation_id)
        await publish_once(channel, message.body, message.exchange, message.routing_key, properties)
