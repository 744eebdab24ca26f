"""Declaring a topology, and finding out what of it is missing."""

from __future__ import annotations

from aio_pika.abc import AbstractConnection
from aio_pika.exceptions import AMQPError, ChannelPreconditionFailed

from dispatcher.core.topology import Topology
from dispatcher.edges import log
from dispatcher.edges.amqp.link import BrokerError, close, connect, explain

_logger = log.get("amqp")


async def declare(url: str, topology: Topology) -> None:
    """Declare every exchange, queue and binding. Doing it again changes nothing.

    Raises:
        BrokerError: the broker is away, refuses the user, or has something of that name with other arguments.
    """
    connection = await _connect(url)
    try:
        await _declare_all(connection, topology)
    except ChannelPreconditionFailed as error:
        raise BrokerError(
            f"{error}: something of that name exists with other arguments; arguments of a name never change, "
            "so delete it once it is empty, or use another amqp.prefix"
        ) from None
    except Exception as error:  # where its connection breaks half-way, aiormq raises a bare Exception too
        raise BrokerError(explain(error, url)) from None
    finally:
        await close(connection)


async def declare_again(url: str, topology: Topology) -> None:
    """Declare what somebody deleted while we ran; a failure is logged, since it will be tried again."""
    try:
        await declare(url, topology)
    except BrokerError as error:
        _logger.error("cannot declare the topology", error=str(error))


async def _connect(url: str) -> AbstractConnection:
    try:
        return await connect(url, "dispatcher topology")
    except (AMQPError, OSError, TimeoutError, ValueError) as error:
        raise BrokerError(explain(error, url)) from None


async def _declare_all(connection: AbstractConnection, topology: Topology) -> None:
    outer = connection.channel()
    await outer.initialize()
    channel = await outer.get_underlay_channel()
    for exchange in topology.exchanges:
        await channel.exchange_declare(
            exchange.name, exchange_type=exchange.type, durable=True, arguments=exchange.arguments or None
        )
    for queue in topology.queues:
        await channel.queue_declare(queue.name, durable=True, arguments=queue.arguments)
    for binding in topology.bindings:
        if binding.to_exchange:
            await channel.exchange_bind(binding.destination, binding.source, routing_key=binding.routing_key)
        else:
            await channel.queue_bind(binding.destination, binding.source, routing_key=binding.routing_key)
