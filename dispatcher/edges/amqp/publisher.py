"""Publishing with confirms: a call returns when the broker has every message, whatever happens in between."""

from __future__ import annotations

import asyncio
import itertools
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, cast

import aiormq
from aio_pika.abc import AbstractConnection
from aiormq.abc import DeliveredMessage
from aiormq.channel import Channel
from aiormq.exceptions import PublishError
from pamqp.commands import Basic

from dispatcher.edges import log
from dispatcher.edges.amqp.link import Link

_logger = log.get("amqp")
_PERSISTENT = 2
#: The broker's pseudo-queue for replies to one channel.
REPLY_TO = "amq.rabbitmq.reply-to"


@dataclass(frozen=True, slots=True)
class Outgoing:
    """A message to publish, persistent; ``exchange`` "" is the default exchange."""

    exchange: str
    routing_key: str
    body: bytes
    headers: dict[str, Any] | None = None
    correlation_id: str | None = None
    reply_to: str | None = None


class Publisher:
    """Publishes on a connection of its own, because an alarm of the broker blocks a whole connection."""

    def __init__(
        self,
        url: str,
        name: str,
        *,
        timeout: float = 30,
        heartbeat: int = 30,
        on_reply: Callable[[str | None, bytes], None] | None = None,
    ) -> None:
        self._timeout = timeout
        self._on_reply = on_reply
        self._channel: Channel | None = None
        self._plain: Channel | None = None
        self._link = Link(url, f"{name} publisher", self._setup, heartbeat)
        # a return is matched by message id, which must be unique among the channel's in-flight publishes
        self._message_ids = map(f"{os.getpid():x}-{{:x}}".format, itertools.count(1))
        #: Publishes whose outcome was unknown and that were sent again.
        self.unknown = 0

    @property
    def ready(self) -> bool:
        """Whether the connection is usable now."""
        return self._link.ready

    @property
    def problem(self) -> str:
        """Why the connection is, or last was, not usable."""
        return self._link.problem

    async def start(self) -> None:
        """Begin to connect, in the background."""
        self._link.start()

    async def close(self) -> None:
        """Close the connection. What is being published is given up."""
        await self._link.close()

    async def wait_ready(self) -> None:
        """Wait until the connection is usable."""
        await self._link.up.wait()

    async def _setup(self, connection: AbstractConnection) -> None:
        confirming = connection.channel(publisher_confirms=True, on_return_raises=True)
        plain = connection.channel(publisher_confirms=False)
        for channel in (confirming, plain):
            await channel.initialize()
            self._link.watch(channel)
        # strong references: a channel that is collected closes
        self._channels = (confirming, plain)
        self._channel = cast(Channel, await confirming.get_underlay_channel())
        self._plain = cast(Channel, await plain.get_underlay_channel())
        if self._on_reply is not None:
            # direct reply-to: the replies to what is published on this channel
            await self._channel.basic_consume(REPLY_TO, self._reply, no_ack=True)

    async def _reply(self, message: DeliveredMessage) -> None:
        if self._on_reply is not None:
            self._on_reply(message.header.properties.correlation_id, bytes(message.body))

    async def publish(self, messages: Sequence[Outgoing]) -> list[int]:
        """Publish all, persistent and mandatory, until the broker confirmed each.

        A publish that timed out or was cut off is unknown and is sent again, so a duplicate is possible and a loss
        is not. Waits as long as the broker is away.

        Returns:
            The indexes of those that no queue took: the broker returned them, and nothing holds them now.
        """
        waiting = list(range(len(messages)))
        returned: list[int] = []
        while waiting:
            await self._link.up.wait()
            results = await self._send([messages[i] for i in waiting])
            returned += [i for i, result in zip(waiting, results, strict=True) if isinstance(result, PublishError)]
            waiting = [
                i
                for i, result in zip(waiting, results, strict=True)
                if isinstance(result, BaseException) and not isinstance(result, PublishError)
            ]
            if waiting:
                self.unknown += len(waiting)
                _logger.warning("publishing again", connection=self._link.name, messages=len(waiting))
                await asyncio.sleep(0.05)
        return sorted(returned)

    async def _send(self, messages: Sequence[Outgoing]) -> list[BaseException | None]:
        channel = self._channel
        assert channel is not None
        tasks = [asyncio.create_task(self._send_one(channel, message)) for message in messages]
        try:
            _, late = await asyncio.wait(tasks, timeout=self._timeout)
        except asyncio.CancelledError:
            for task in tasks:
                task.cancel()
            raise
        if late:
            self._link.drop(f"no confirm within {self._timeout:g} s")
            for task in late:
                task.cancel()
            await asyncio.wait(late)
        return [asyncio.CancelledError() if task.cancelled() else task.exception() for task in tasks]

    async def _send_one(self, channel: Channel, message: Outgoing) -> None:
        await channel.basic_publish(
            message.body,
            exchange=message.exchange,
            routing_key=message.routing_key,
            properties=self._properties(message),
            mandatory=True,
            wait=False,
        )

    def _properties(self, message: Outgoing) -> Basic.Properties:
        return Basic.Properties(
            content_type="application/json",
            delivery_mode=_PERSISTENT,
            headers=message.headers,
            correlation_id=message.correlation_id,
            reply_to=message.reply_to,
            message_id=next(self._message_ids),
        )

    async def send(self, message: Outgoing) -> None:
        """Publish once, transient, without confirm and without knowing whether it arrived (replies)."""
        channel = self._plain
        if channel is None or not self._link.ready:
            return
        properties = Basic.Properties(content_type="application/json", correlation_id=message.correlation_id)
        try:
            await channel.basic_publish(
                message.body,
                exchange=message.exchange,
                routing_key=message.routing_key,
                properties=properties,
                wait=False,
            )
        except (aiormq.exceptions.AMQPError, OSError, RuntimeError) as error:
            _logger.info("reply not sent", error=type(error).__name__)
