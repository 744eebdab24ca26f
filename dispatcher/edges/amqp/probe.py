"""Asking RabbitMQ how it is, without changing anything of the installation.

What is there is asked for by passive declarations, then compared by declaring it with the arguments that it should
have, which changes nothing where it exists. Messages are sent to a queue of the probe's own alone, which goes with its
connection; the one through the delay ladder takes the lowest level, which is empty every 65 ms.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, cast

from aio_pika import Message
from aio_pika.abc import AbstractChannel, AbstractConnection, AbstractQueue
from aio_pika.exceptions import AMQPError, DeliveryError
from aiormq.channel import Channel
from aiormq.exceptions import ChannelNotFoundEntity

from dispatcher.core.topology import Names, Topology
from dispatcher.edges.amqp.alarm import Alarm
from dispatcher.edges.amqp.link import BrokerError, close, connect, explain

#: Longest wait for one answer of the broker, in seconds.
ANSWER_TIMEOUT = 5.0
#: Longest wait for a confirm, and for the message in the ladder.
ACCEPT_TIMEOUT, LADDER_TIMEOUT = 3.0, 5.0

_FAULTS = (AMQPError, OSError, TimeoutError, ValueError, RuntimeError)


@dataclass(slots=True)
class Declared:
    """What of a topology is there: names that are missing, and what the broker says of those that differ."""

    missing: list[str] = field(default_factory=list)
    different: dict[str, str] = field(default_factory=dict)


class Probe:
    """One connection on which the broker is asked.

    Args:
        url: the broker.
        token: chosen by chance; names what the probe makes for itself.
    """

    def __init__(self, url: str, token: str) -> None:
        self._url = url
        self._token = token
        self._connection: AbstractConnection | None = None
        #: What the server says of itself.
        self.product = ""
        self.version = ""
        self.capabilities: Mapping[str, Any] = {}

    async def open(self) -> None:
        """Connect.

        Raises:
            BrokerError: it did not work; the sentence says why.
        """
        try:
            connection = self._connection = await connect(self._url, "dispatcher doctor")
        except _FAULTS as error:
            raise BrokerError(explain(error, self._url)) from None
        properties: Mapping[str, Any] = connection.transport.connection.server_properties  # type: ignore[union-attr]
        self.product, self.version = str(properties.get("product")), str(properties.get("version"))
        self.capabilities = properties.get("capabilities") or {}

    async def close(self) -> None:
        """Close the connection, and with it everything that the probe made."""
        if self._connection is not None:
            await close(self._connection)

    async def _outer(self, *, confirms: bool = False) -> AbstractChannel:
        assert self._connection is not None
        outer = self._connection.channel(publisher_confirms=confirms, on_return_raises=confirms)
        await outer.initialize(timeout=ANSWER_TIMEOUT)
        return outer

    async def declared(self, topology: Topology) -> Declared:
        """What of a topology is there, and as it should be.

        Raises:
            BrokerError: the connection was lost.
        """
        found = Declared()
        asking = _Asking(self._outer)
        try:
            for exchange in topology.exchanges:
                options = {"exchange_type": exchange.type, "timeout": ANSWER_TIMEOUT}
                full = {**options, "durable": True, "arguments": exchange.arguments or None}
                await asking.compare(found, "exchange_declare", exchange.name, options, full)
            for queue in topology.queues:
                options = {"timeout": ANSWER_TIMEOUT}
                full = {**options, "durable": True, "arguments": queue.arguments}
                await asking.compare(found, "queue_declare", queue.name, options, full)
        except _FAULTS as error:
            raise BrokerError(explain(error, self._url)) from None
        return found

    async def stream_flag(self) -> bool | None:
        """Whether the feature flag stream_queue is enabled; None where the broker's answer does not tell.

        An exclusive stream cannot be declared; what the broker refuses first says whether streams can be at all.
        Asked on a connection of its own, which the refusal may cost.
        """
        try:
            connection = await connect(self._url, "dispatcher doctor")
        except _FAULTS:
            return None
        try:
            outer = connection.channel(publisher_confirms=False)
            await outer.initialize(timeout=ANSWER_TIMEOUT)
            channel = await outer.get_underlay_channel()
            await channel.queue_declare(
                f"doctor-{self._token}",
                exclusive=True,
                durable=True,
                arguments={"x-queue-type": "stream"},
                timeout=ANSWER_TIMEOUT,
            )
        except Exception as error:  # a connection that the broker closes raises a bare one too
            return _flag(str(error))
        finally:
            await close(connection)
        return None

    async def accepts(self) -> tuple[float | None, str, str]:
        """Seconds until the broker confirmed a message to the probe's own queue, or None; an alarm; what it said.

        On a connection of its own: while an alarm lasts, the broker reads nothing more from one that has published.
        """
        alarm = Alarm("dispatcher doctor")
        try:
            connection = await connect(self._url, "dispatcher doctor")
        except _FAULTS as error:
            return None, "", str(error)
        try:
            outer = connection.channel(publisher_confirms=True)
            await outer.initialize(timeout=ANSWER_TIMEOUT)
            underlay = await outer.get_underlay_channel()
            alarm.follow(underlay.connection)
            queue = await outer.declare_queue(exclusive=True, timeout=ANSWER_TIMEOUT)
            began = time.monotonic()
            await outer.default_exchange.publish(Message(b""), queue.name, timeout=ACCEPT_TIMEOUT)
            return time.monotonic() - began, alarm.reason, ""
        except _FAULTS as error:
            return None, alarm.reason, str(error)
        finally:
            await close(connection)

    async def through_ladder(self, names: Names) -> tuple[float | None, str]:
        """Seconds that a message took through the lowest level of the ladder; or why it did not come out."""
        try:
            outer = await self._outer(confirms=True)
            queue = await outer.declare_queue(exclusive=True, timeout=ANSWER_TIMEOUT)
            due = await outer.get_exchange(names.due, ensure=False)
            await queue.bind(due, f"doctor.{self._token}.#", timeout=ANSWER_TIMEOUT)
            delays = await outer.get_exchange(names.delays, ensure=False)
            began = time.monotonic()
            await delays.publish(Message(b"doctor"), f"doctor.{self._token}.00", timeout=ACCEPT_TIMEOUT)
            if not await _arrived(queue):
                return None, f"nothing came out of it within {LADDER_TIMEOUT:g} s"
            return time.monotonic() - began, ""
        except DeliveryError:
            return None, f"{names.delays} does not lead into {names.delay(0)}"
        except TimeoutError:
            return None, "RabbitMQ does not answer"
        except _FAULTS as error:
            return None, str(error)


class _Asking:
    """Declarations, each refusal of which costs the channel that it was made on."""

    def __init__(self, opened: Any) -> None:
        self._opened = opened
        self._outer: AbstractChannel | None = None

    async def _channel(self) -> Channel:
        if self._outer is None or self._outer.is_closed:
            self._outer = await self._opened()
        return cast(Channel, await self._outer.get_underlay_channel())

    async def compare(
        self, found: Declared, method: str, name: str, options: dict[str, Any], full: dict[str, Any]
    ) -> None:
        """Ask whether it exists, and if so whether it is what it should be."""
        try:
            await getattr(await self._channel(), method)(name, passive=True, **options)
        except ChannelNotFoundEntity:
            found.missing.append(name)
            return
        except AMQPError as error:
            found.different[name] = str(error)
            return
        try:
            await getattr(await self._channel(), method)(name, **full)
        except AMQPError as error:
            found.different[name] = str(error)


def _flag(refusal: str) -> bool | None:
    if "feature flag" in refusal:
        return False
    return True if "exclusive" in refusal else None


async def _arrived(queue: AbstractQueue) -> bool:
    deadline = time.monotonic() + LADDER_TIMEOUT
    while time.monotonic() < deadline:
        if await queue.get(no_ack=True, fail=False, timeout=ANSWER_TIMEOUT) is not None:
            return True
        await asyncio.sleep(0.01)
    return False
