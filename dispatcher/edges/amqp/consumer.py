"""Consuming from several queues on one channel, with acknowledgements gathered and flushed together."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

import aiormq
from aio_pika.abc import AbstractConnection
from aiormq.abc import AbstractChannel, DeliveredMessage

from dispatcher.core.acks import AckLedger
from dispatcher.edges import log
from dispatcher.edges.amqp.link import Link

_logger = log.get("amqp")


@dataclass(frozen=True, slots=True)
class Subscription:
    """A queue to consume, and how many of its messages may be held unacknowledged."""

    queue: str
    prefetch: int


class _Session:
    """One channel's lifetime: its tags mean nothing on another."""

    def __init__(self, channel: AbstractChannel) -> None:
        self.channel = channel
        self.ledger = AckLedger()
        self.open = True


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

    @property
    def delivery_count(self) -> int:
        """How often it was delivered before and came back; read only to suspect a crash."""
        count = self.headers.get("x-delivery-count", 0)
        return count if isinstance(count, int) else 0


class Consumer:
    """Delivers messages to a plain function; acknowledges what `done` names at the next `flush`.

    ``on_delivery`` runs in the event loop and must not block; it must not raise.
    """

    def __init__(
        self,
        url: str,
        name: str,
        subscriptions: Iterable[Subscription],
        on_delivery: Callable[[Delivery], None],
        *,
        heartbeat: int = 30,
    ) -> None:
        self._subscriptions = tuple(subscriptions)
        self._on_delivery = on_delivery
        self._session: _Session | None = None
        self._stopped = False
        self._link = Link(url, f"{name} consumer", self._setup, heartbeat)

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
            with contextlib.suppress(aiormq.exceptions.AMQPError, asyncio.TimeoutError):
                await session.channel.basic_cancel(subscription.queue, timeout=5)

    async def _setup(self, connection: AbstractConnection) -> None:
        if self._session is not None:
            self._session.open = False
        outer = connection.channel(publisher_confirms=False)
        await outer.initialize()
        self._link.watch(outer)
        self._outer = outer  # a strong reference: a channel that is collected closes
        channel = await outer.get_underlay_channel()
        session = self._session = _Session(channel)
        if self._stopped:
            return
        channel.on_consumer_cancel_callbacks.add(self._cancelled)
        for subscription in self._subscriptions:
            await channel.basic_qos(prefetch_count=subscription.prefetch)
            await channel.basic_consume(
                subscription.queue,
                self._receiver(session, subscription.queue),
                consumer_tag=subscription.queue,
            )

    def _cancelled(self, frame: Any) -> None:
        self._link.drop(f"the broker cancelled the consumer of {frame.consumer_tag}")

    def _receiver(self, session: _Session, queue: str) -> Callable[[DeliveredMessage], Any]:
        async def receive(message: DeliveredMessage) -> None:
            method, properties = message.delivery, message.header.properties
            tag = method.delivery_tag  # type: ignore[union-attr]
            session.ledger.delivered(tag)  # type: ignore[arg-type]
            self._on_delivery(
                Delivery(
                    queue,
                    tag,  # type: ignore[arg-type]
                    bytes(message.body),
                    message.routing_key or "",
                    bool(method.redelivered),  # type: ignore[union-attr]
                    properties.headers or {},
                    properties.reply_to,
                    properties.correlation_id,
                    session,
                )
            )

        return receive

    def done(self, delivery: Delivery) -> None:
        """What replaces the message is confirmed: acknowledge it at the next flush.

        Where its channel is gone nothing can be acknowledged; the broker has queued the message again already.
        """
        if delivery.session.open:
            delivery.session.ledger.finish(delivery.tag)

    async def give_back(self, delivery: Delivery) -> None:
        """Return a message to its queue unprocessed."""
        session = delivery.session
        if session.open:
            session.ledger.give_back(delivery.tag)
            with contextlib.suppress(aiormq.exceptions.AMQPError, RuntimeError):
                await session.channel.basic_nack(delivery.tag, requeue=True, wait=False)

    async def flush(self) -> None:
        """Acknowledge everything that is done."""
        session = self._session
        if session is None or not session.open:
            return
        upto, single = session.ledger.flush()
        try:
            if upto is not None:
                await session.channel.basic_ack(upto, multiple=True, wait=False)
            for tag in single:
                await session.channel.basic_ack(tag, wait=False)
        except (aiormq.exceptions.AMQPError, RuntimeError):
            session.open = False
