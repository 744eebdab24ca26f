"""One connection to RabbitMQ that comes back by itself.

A connection, its channels and everything delivered on them live and die together: when any of it is lost, all of
it is closed and set up anew. That is simpler to reason about than mending a part, and acknowledgements belong to
the channel that delivered in any case.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import asynccontextmanager
from typing import Any, cast

import aio_pika
import aiormq.connection
import backoff
from aio_pika.abc import AbstractChannel, AbstractConnection
from aio_pika.exceptions import AMQPError
from aiormq.channel import Channel

from dispatcher.core.errors import DispatcherError
from dispatcher.edges import log
from dispatcher.edges.amqp import receiver, tolerant

#: Heartbeats without a word after which a connection is given up. The broker gives it up then, and its messages to
#: others; aiormq would wait for a third one, and we would say meanwhile that all is well.
SILENT_HEARTBEATS = 2

tolerant.install()
receiver.install()
aiormq.connection.Connection.HEARTBEAT_GRACE_MULTIPLIER = SILENT_HEARTBEATS

#: Longest pause between two attempts to connect, in seconds; every consumer is back within 10 s of its broker.
MAX_PAUSE = 2.0
CONNECT_TIMEOUT = 10.0
#: Longest time that declaring consumers may take on a busy broker, and that a connection may take to close, in seconds.
SETUP_TIMEOUT = 30.0
CLOSE_TIMEOUT = 5.0

_logger = log.get("amqp")


class BrokerError(DispatcherError):
    """RabbitMQ cannot be used; the sentence says why and what to do."""


def explain(error: BaseException, url: str) -> str:
    """One sentence about a failed connection or set-up, without the password."""
    shown = without_password(url)
    text = str(error) or type(error).__name__
    name = type(error).__name__
    if ("NOT_FOUND" in text and "queue" in text) or "no exchange" in text:
        return f"{text}: run `dispatcher topology apply` with the same configuration"
    if " - access to" in text:  # to a queue, an exchange or the virtual host itself
        return f"RabbitMQ at {shown}: its user lacks a right ({text}); see rabbitmqctl set_permissions"
    if "authentication" in name.lower() or "ACCESS_REFUSED" in text:
        return f"RabbitMQ at {shown} refused the user or password; check amqp.url (DISPATCHER_AMQP__URL)"
    if "SSL" in text or "SSL" in name:
        return f"RabbitMQ at {shown}: TLS failed ({text}); check amqp:// or amqps://, the port and the certificate"
    # the broker answers the opening of a virtual host by closing; aiormq tells only that it expected another frame
    if "vhost" in text or "Connection.OpenOk" in text:
        return (
            f"RabbitMQ at {shown} has no such virtual host, or its user may not use it; check the path of amqp.url "
            "(DISPATCHER_AMQP__URL), and `rabbitmqctl list_permissions -p VHOST`"
        )
    return f"cannot use RabbitMQ at {shown} ({name}: {text}); is it running, is amqp.url right?"


def without_password(url: str) -> str:
    """The URL with its password replaced."""
    return re.sub(r"(://[^:/@]*):.*@", r"\1:***@", url)


class _Connection(aio_pika.Connection):
    """A connection that did not come about is closed; else Python complains when it is collected."""

    async def connect(self, timeout: Any = None) -> None:
        """Connect, or close."""
        try:
            await super().connect(timeout)
        except BaseException:
            await self.close()
            raise


async def connect(url: str, name: str, heartbeat: int = 30) -> AbstractConnection:
    """Open one connection, named so that the management UI shows whose it is."""
    return await aio_pika.connect(
        url,
        timeout=CONNECT_TIMEOUT,
        heartbeat=heartbeat,
        client_properties={"connection_name": name},
        connection_class=_Connection,
    )


@asynccontextmanager
async def brief_connection(url: str, purpose: str) -> AsyncIterator[AbstractConnection]:
    """A connection for the length of a block; what goes wrong with it is told in a sentence.

    Raises:
        BrokerError: the broker is away, or refused something inside the block.
    """
    try:
        connection = await connect(url, f"dispatcher {purpose}")
    except (AMQPError, OSError, TimeoutError, ValueError) as error:
        raise BrokerError(explain(error, url)) from None
    try:
        yield connection
    except (AMQPError, OSError, TimeoutError, RuntimeError) as error:  # aiormq's word for a closed channel is the last
        raise BrokerError(explain(error, url)) from None
    finally:
        await close(connection)


async def open_channel(connection: AbstractConnection) -> tuple[AbstractChannel, Channel]:
    """A channel without confirms: aio-pika's, to be held on to, and aiormq's below it, whose calls cost less."""
    outer = connection.channel(publisher_confirms=False)
    await outer.initialize()
    return outer, cast(Channel, await outer.get_underlay_channel())


class Link:
    """A connection that is set up again whenever it is lost, until `close`."""

    def __init__(
        self,
        url: str,
        name: str,
        setup: Callable[[AbstractConnection], Coroutine[Any, Any, None]],
        heartbeat: int = 30,
        on_lost: Callable[[], None] | None = None,
    ) -> None:
        self._url = url
        self._on_lost = on_lost
        self.name = name
        self._setup = setup
        self._heartbeat = heartbeat
        self._lost = asyncio.Event()
        #: Counts connections, so that a late word of an old one does not end the new one.
        self._generation = 0
        #: Strong references: a channel that is collected closes.
        self._channels: list[AbstractChannel] = []
        self._task: asyncio.Task[None] | None = None
        self._closings: set[asyncio.Task[None]] = set()
        #: Set while the connection and its channels are usable.
        self.up = asyncio.Event()
        #: The last reason why it was not; "" while nothing went wrong.
        self.problem = ""

    @property
    def ready(self) -> bool:
        """Whether the connection is usable now."""
        return self.up.is_set()

    def start(self) -> None:
        """Begin to connect, in the background; the broker may be away."""
        self._task = asyncio.create_task(self._run(), name=f"link {self.name}")

    async def close(self) -> None:
        """Close the connection for good."""
        task, self._task = self._task, None
        while task is not None and not task.done():
            # one cancellation may get lost on the way: wait_for swallows it when what it waits for ends just then
            task.cancel()
            await asyncio.wait({task}, timeout=1)
        if self._closings:
            await asyncio.wait(self._closings, timeout=CLOSE_TIMEOUT)

    def drop(self, reason: str, generation: int | None = None) -> None:
        """Give the connection up; it is set up anew. With ``generation``, only if that is still the current one."""
        if generation is not None and (generation != self._generation or self._lost.is_set()):
            return  # an old connection's, or not the first thing that went wrong with this one
        self.problem = reason
        if self.up.is_set():
            _logger.warning("connection dropped", connection=self.name, reason=reason)
        self.up.clear()
        self._lost.set()
        if self._on_lost is not None:
            self._on_lost()

    async def channel(self, connection: AbstractConnection, **options: Any) -> Channel:
        """Open a channel with which the connection lives and dies.

        Returns aiormq's channel, below aio-pika's: its calls cost less.
        """
        outer = connection.channel(**options)
        await outer.initialize()
        self._watch(outer)
        self._channels.append(outer)
        return cast(Channel, await outer.get_underlay_channel())

    def _watch(self, channel: AbstractChannel) -> None:
        """Drop the connection when this channel closes."""
        generation = self._generation

        def closed(_: Any, error: BaseException | None) -> None:
            self.drop(f"channel closed: {explain(error, self._url) if error else 'in order'}", generation)

        channel.close_callbacks.add(closed)

    async def _run(self) -> None:
        while True:
            connection = await self._open()
            try:
                await self._lost.wait()
            finally:
                self.up.clear()
                await self._shut(connection)

    async def _shut(self, connection: AbstractConnection) -> None:
        """Close a connection; one that takes long goes on closing beside the next."""
        task = _closing(connection)
        self._closings.add(task)
        task.add_done_callback(self._closings.discard)
        await asyncio.wait({task}, timeout=CLOSE_TIMEOUT)

    async def _open(self) -> AbstractConnection:
        attempt = backoff.on_exception(
            backoff.expo,
            Exception,
            factor=0.1,
            max_value=MAX_PAUSE,
            jitter=backoff.full_jitter,
            logger=None,
            on_backoff=self._report,
        )(self._try)
        return await attempt()

    async def _try(self) -> AbstractConnection:
        connection = await connect(self._url, self.name, self._heartbeat)
        self._generation += 1
        generation = self._generation
        self._channels = []
        self._lost.clear()
        connection.close_callbacks.add(lambda _, error: self.drop(f"connection closed: {error}", generation))
        try:
            await _within(SETUP_TIMEOUT, self._setup(connection))
            if self._lost.is_set():
                raise ConnectionResetError("lost while it was set up")
        except BaseException:
            await self._shut(connection)
            raise
        self.up.set()
        _logger.info("connected", connection=self.name)
        return connection

    def _report(self, details: Any) -> None:
        self.problem = explain(details["exception"], self._url)
        if details["tries"] in (1, 5) or details["tries"] % 30 == 0:
            _logger.warning(self.problem, connection=self.name, tries=details["tries"])


def _closing(connection: AbstractConnection) -> asyncio.Task[None]:
    """Close a connection, in a task that is never to be cancelled: aiormq, cancelled half-way, never ends."""
    task = asyncio.create_task(connection.close())
    task.add_done_callback(_retrieve)
    return task


async def close(connection: AbstractConnection) -> None:
    """Close a connection, however broken it is; one that takes long goes on closing by itself."""
    await asyncio.wait({_closing(connection)}, timeout=CLOSE_TIMEOUT)


def _retrieve(ended: asyncio.Task[None]) -> None:
    """Look at a task's error, so that asyncio does not log it as one that nobody saw."""
    if not ended.cancelled():
        ended.exception()


async def _within(seconds: float, work: Coroutine[Any, Any, None]) -> None:
    """Await something of aiormq's; what is late is cancelled and left to itself.

    `asyncio.wait_for` waits until what it cancelled has ended, and on a broken connection that may be never.

    Raises:
        TimeoutError: it was late.
    """
    task = asyncio.create_task(work)
    try:
        await asyncio.wait({task}, timeout=seconds)
        if not task.done():
            raise TimeoutError(f"not done within {seconds:g} s")
        task.result()
    finally:
        task.cancel()
        task.add_done_callback(_retrieve)


async def check_broker(url: str) -> None:
    """Connect once.

    Raises:
        BrokerError: it did not work; the sentence says why.
    """
    async with brief_connection(url, "check"):
        pass
