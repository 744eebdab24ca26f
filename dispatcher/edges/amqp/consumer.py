"""Consuming from several queues on one channel, with acknowledgements gathered and flushed together."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import time
from collections.abc import Awaitable, Callable, Iterable
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import aiormq
from aio_pika.abc import AbstractConnection
from aiormq.abc import DeliveredMessage
from aiormq.channel import Channel
from pamqp.body import ContentBody
from pamqp.commands import Basic
from pamqp.header import ContentHeader

from dispatcher.core.acks import AckLedger
from dispatcher.edges import log
from dispatcher.edges.amqp.frames import ack_frames, give_back_frame
from dispatcher.edges.amqp.link import Link
from dispatcher.edges.amqp.publisher import AGAIN_HEADER
from dispatcher.edges.amqp.writing import write

_logger = log.get("amqp")
#: Longest wait for the broker's answer, in seconds.
ANSWER_TIMEOUT = 5
#: A message that came back so often may be what kills its process.
SUSPECT_AFTER = 3


@dataclass(frozen=True, slots=True)
class Subscription:
    """A queue to consume, and how many of its messages may be held unacknowledged.

    ``largest``: of a message with more bytes only so many are kept; the prefetch counts messages, whatever their size.
    """

    queue: str
    prefetch: int
    largest: int | None = None


class _Session:
    """One channel's lifetime: its tags mean nothing on another. ``began``: in seconds of the monotonic clock."""

    def __init__(self, channel: Channel, began: float) -> None:
        self.channel = channel
        self.ledger = AckLedger()
        self.began = began
        #: The queue of each consumer tag, and the tag under which each queue is consumed.
        self.queues: dict[str, str] = {}
        self.tags: dict[str, str] = {}
        self.numbers = itertools.count(1)
        #: The prefetch that the next consumer gets.
        self.prefetch: int | None = None
        #: What is delivered while the other queues are not consumed yet: the work that it makes would hold them up.
        self.kept: list[Delivery] | None = []
        self.open = True
        #: What is taken from the ledger is written in the same order: a later ``multiple`` that overtook an earlier
        #: single acknowledgement would make it the second one of its tag, which costs the channel.
        self.acking = asyncio.Lock()
        #: Bytes of the bodies that are not done yet.
        self.held = 0
        self._freed = asyncio.Event()

    async def room(self, size: int, most: int) -> None:
        """Wait until a body of this size may be held; one that is alone always may."""
        while self.held and self.held + size > most:
            self._freed.clear()
            await self._freed.wait()
        self.held += size

    def free(self, size: int) -> None:
        """A body is held no more."""
        self.held -= size
        self._freed.set()


@dataclass(slots=True, eq=False)
class Delivery:
    """A message that was delivered and is not acknowledged yet."""

    queue: str
    tag: int
    body: bytes
    routing_key: str
    redelivered: bool
    headers: dict[str, Any]
    reply_to: str | None
    correlation_id: str | None
    session: _Session
    #: Bytes of the body before it was cut to its subscription's largest; None where it is whole.
    cut_from: int | None = None

    @property
    def size(self) -> int:
        """Bytes of the body as it was published."""
        return len(self.body) if self.cut_from is None else self.cut_from

    @property
    def delivery_count(self) -> int:
        """How often it was delivered before and came back; read only to suspect a crash.

        On a first delivery the header is absent, or what the client wrote there.
        """
        count = self.headers.get("x-delivery-count", 0) if self.redelivered else 0
        return count if isinstance(count, int) else 0

    @property
    def again(self) -> bool:
        """Whether somebody else may have had it: it was delivered before, or published twice."""
        return self.redelivered or AGAIN_HEADER in self.headers

    def doubted(self) -> Delivery:
        """The same delivery, taken for one that somebody else may have had."""
        return replace(self, headers=self.headers | {AGAIN_HEADER: True})

    @property
    def since_reconnect(self) -> float:
        """Seconds since the consumer reconnected, when this came; infinite on its first connection."""
        return time.monotonic() - self.session.began

    @property
    def suspect(self) -> bool:
        """Whether the processes that held it died so often that it may be the cause."""
        return self.delivery_count >= SUSPECT_AFTER


class Consumer:
    """Delivers messages to a plain function; acknowledges what `done` names at the next `flush`.

    ``on_delivery`` runs in the event loop and must not block; it must not raise.

    Args:
        url, name: the broker, and whose connection it is.
        subscriptions: what to consume.
        on_delivery: takes each delivery.
        heartbeat: seconds between heartbeats.
        max_held_bytes: while the bodies that are not done yet have so many bytes, nothing more is read from the
            connection, heartbeats neither: only for services that are done with all they hold within seconds.
        on_lost: called when the connection is lost, and with it what was delivered.
        on_missing: awaited when a queue is gone that was consumed before; it declares it anew. A queue that was never
            there is not its business: whether it ought to be is for an operator to say.
    """

    def __init__(
        self,
        url: str,
        name: str,
        subscriptions: Iterable[Subscription],
        on_delivery: Callable[[Delivery], None],
        *,
        heartbeat: int = 30,
        on_missing: Callable[[], Awaitable[None]] | None = None,
        max_held_bytes: int | None = None,
        on_lost: Callable[[], None] | None = None,
    ) -> None:
        self._subscriptions = tuple(subscriptions)
        self._largest = {each.queue: each.largest for each in self._subscriptions if each.largest is not None}
        self._max_held_bytes = max_held_bytes
        self._on_delivery = on_delivery
        self._on_missing = on_missing
        self._on_lost = on_lost
        #: Queues that were there once.
        self._known: set[str] = set()
        self._session: _Session | None = None
        self._stopped = False
        self._paused: set[str] = set()
        #: The connection.
        self.link = self._link = Link(url, f"{name} consumer", self._setup, heartbeat, self._lost)
        #: What somebody else sets up on each connection before anything is consumed, and does when that is lost.
        self.beside: tuple[Callable[[AbstractConnection], Awaitable[None]], Callable[[], None]] | None = None

    @property
    def ready(self) -> bool:
        """Whether every subscription is being consumed now."""
        return self._link.ready

    async def start(self) -> None:
        """Begin to connect and consume, in the background."""
        self._link.start()

    async def close(self) -> None:
        """Close the connection; the broker gives what is unacknowledged to others."""
        if self._session is not None:
            self._session.open = False
        await self._link.close()

    async def stop(self) -> None:
        """Stop taking messages; those taken can still be acknowledged."""
        self._stopped = True
        session = self._session
        if session is None or not session.open or not self._link.ready:
            return
        for subscription in self._subscriptions:
            if tag := session.tags.get(subscription.queue):
                with contextlib.suppress(aiormq.exceptions.AMQPError, asyncio.TimeoutError):
                    await session.channel.basic_cancel(tag, timeout=ANSWER_TIMEOUT)

    async def _setup(self, connection: AbstractConnection) -> None:
        if self._session is not None:
            self._session.open = False
        if self.beside is not None:
            await self.beside[0](connection)
        channel = await self._link.channel(connection, publisher_confirms=False)
        first = self._session is None
        session = self._session = _Session(channel, float("-inf") if first else time.monotonic())
        self._paused.clear()
        if self._stopped:
            return
        channel._on_deliver_frame = partial(self._deliver, session)  # type: ignore[method-assign]
        channel.on_consumer_cancel_callbacks.add(self._cancelled)
        for subscription in self._subscriptions:
            try:
                await _consume(session, subscription)
            except aiormq.exceptions.ChannelNotFoundEntity:
                if self._on_missing is not None and subscription.queue in self._known:
                    _logger.error("a queue was deleted under its consumer: declaring it", queue=subscription.queue)
                    await self._on_missing()
                raise  # the next connection finds it
            self._known.add(subscription.queue)
        kept, session.kept = session.kept or [], None
        for delivery in kept:
            self._on_delivery(delivery)

    @property
    def paused(self) -> frozenset[str]:
        """The queues that are not consumed for the moment."""
        return frozenset(self._paused)

    async def pause(self, queues: Iterable[str]) -> None:
        """Take nothing more from these queues until `resume`; what was taken stays taken."""
        session = self._session
        if session is None or not session.open or not self._link.ready:
            return
        for queue in set(queues) - self._paused:
            tag = session.tags.pop(queue)
            try:
                await session.channel.basic_cancel(tag, timeout=ANSWER_TIMEOUT)
            except (TimeoutError, aiormq.exceptions.AMQPError) as error:
                # else the queue could be without a consumer, and nobody would know
                self._link.drop(f"cannot stop consuming {queue}: {type(error).__name__}")
                return
            del session.queues[tag]  # nothing comes under it after the broker's answer
            if session is not self._session:
                return
            self._paused.add(queue)

    async def resume(self, queues: Iterable[str]) -> None:
        """Consume these queues again."""
        session = self._session
        for queue in queues:
            if queue not in self._paused or session is not self._session or session is None or not session.open:
                continue
            self._paused.discard(queue)
            (subscription,) = [s for s in self._subscriptions if s.queue == queue]
            try:
                await _consume(session, subscription, ANSWER_TIMEOUT)
            except (TimeoutError, aiormq.exceptions.AMQPError) as error:
                self._link.drop(f"cannot consume {queue} again: {type(error).__name__}")

    async def counts(self, queue: str) -> tuple[int, int] | None:
        """How many messages wait in a queue of ours, and how many others consume it; None while that is not known."""
        session = self._session
        if session is None or not session.open or not self._link.ready:
            return None
        try:
            found = await session.channel.queue_declare(queue, passive=True, timeout=ANSWER_TIMEOUT)
        except (TimeoutError, aiormq.exceptions.AMQPError):
            return None
        return found.message_count or 0, (found.consumer_count or 0) - (queue in session.tags)

    def _lost(self) -> None:
        """The connection is gone, and with it what was delivered on it."""
        if self._session is not None:
            self._session.open = False
        if self.beside is not None:
            self.beside[1]()
        if self._on_lost is not None:
            self._on_lost()

    def _cancelled(self, frame: Any) -> None:
        self._link.drop(f"the broker cancelled the consumer {frame.consumer_tag}")

    async def _deliver(self, session: _Session, frame: Basic.Deliver) -> None:
        """Read a message's content and hand it on, without a task of its own as aiormq would make it."""
        channel = session.channel
        header: ContentHeader = await channel._get_frame()  # type: ignore[assignment]
        queue, size = session.queues[frame.consumer_tag or ""], header.body_size
        largest = self._largest.get(queue, size)
        if self._max_held_bytes is not None:
            await session.room(size, self._max_held_bytes)
        parts = []
        missing = size
        while missing > 0:
            content: ContentBody = await channel._get_frame()  # type: ignore[assignment]
            if size - missing < largest:
                parts.append(content.value)
            missing -= len(content.value)
        tag, properties = int(frame.delivery_tag or 0), header.properties
        session.ledger.delivered(tag)
        delivery = Delivery(
            queue,
            tag,
            parts[0] if len(parts) == 1 else b"".join(parts),
            frame.routing_key or "",
            frame.redelivered,
            properties.headers or {},
            properties.reply_to,
            properties.correlation_id,
            session,
            size if size > largest else None,
        )
        if session.kept is None:
            self._on_delivery(delivery)
        else:
            session.kept.append(delivery)

    def holds(self, delivery: Delivery) -> bool:
        """Whether the message is still this consumer's, as far as is known; else the broker has queued it again."""
        return delivery.session.open

    def drop(self, reason: str) -> None:
        """Give the connection up; it is set up anew, and what was delivered comes again."""
        self._link.drop(reason)

    def done(self, delivery: Delivery) -> None:
        """What replaces the message is confirmed: acknowledge it at the next flush.

        Where its channel is gone nothing can be acknowledged; the broker has queued the message again already.
        """
        if delivery.session.open:
            delivery.session.ledger.finish(delivery.tag)
        if self._max_held_bytes is not None:
            delivery.session.free(delivery.size)

    async def give_back(self, delivery: Delivery) -> None:
        """Return a message to its queue unprocessed."""
        session = delivery.session
        if not session.open:
            return
        async with session.acking:
            session.ledger.give_back(delivery.tag)
            await self._write(session, give_back_frame(session.channel.number, delivery.tag))

    async def flush(self) -> None:
        """Acknowledge everything that is done."""
        session = self._session
        if session is None or not session.open:
            return
        async with session.acking:
            # one write, since jobs end in any order and each lone acknowledgement would be a write of its own
            await self._write(session, ack_frames(session.channel.number, *session.ledger.flush()))

    async def _write(self, session: _Session, frames: bytes) -> None:
        """Write to the session's channel; when that is gone, the broker has queued its messages again."""
        if session.channel.is_closed:
            session.open = False
        if not frames or not session.open:
            return
        try:
            await write(session.channel, frames)
        except ConnectionError as error:
            session.open = False
            if session is self._session:
                self._link.drop(str(error))


async def _consume(session: _Session, subscription: Subscription, timeout: float | None = None) -> None:
    """Begin to consume, under a tag that this channel has not had.

    RabbitMQ 3.10 ends the connection when a tag is used again whose messages are not all acknowledged.
    """
    queue = subscription.queue
    tag = f"{queue} {next(session.numbers)}"
    session.queues[tag], session.tags[queue] = queue, tag
    if session.prefetch != subscription.prefetch:
        await session.channel.basic_qos(prefetch_count=subscription.prefetch, timeout=timeout)
        session.prefetch = subscription.prefetch
    await session.channel.basic_consume(queue, _never_called, consumer_tag=tag, timeout=timeout)


async def _never_called(_: DeliveredMessage) -> None:
    """aiormq wants a callback for each consumer; `Consumer._deliver` comes before it."""
