"""Going once through a queue: some messages are replaced, the others go to its tail.

Never by nack: that would count as a failed delivery of the messages that were not chosen. No message is delivered that
is not dealt with: the consumer is cancelled before the last acknowledgement would bring it more.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

from aiormq.abc import DeliveredMessage
from aiormq.channel import Channel

from dispatcher.core.dated import AT_HEADER, ERROR_HEADER
from dispatcher.edges.amqp.link import BrokerError, brief_connection, open_channel
from dispatcher.edges.amqp.publisher import Outgoing, Publisher

#: Headers that a parked message may carry; everything else there is the broker's.
OUR_HEADERS = ("traceparent", "tracestate", ERROR_HEADER, AT_HEADER)
#: Messages that are looked at together.
WINDOW = 250
#: Windows that are held at a time: one is on its way here while the other is published.
AHEAD = 2
#: Seconds without a message after which the queue is taken to be empty: somebody else took what was there.
IDLE = 5.0
#: Longest wait for an answer of the broker, in seconds.
ANSWER_TIMEOUT = 30


@dataclass(slots=True)
class Rotated:
    """How far a rotation is: of ``total`` messages, and what became of them."""

    total: int = 0
    looked_at: int = 0
    replaced: int = 0
    dropped: int = 0
    #: Chosen, but no queue took the replacement: they stay.
    unroutable: int = 0


class Plan(Protocol):
    """What is to become of the messages."""

    async def choose(self, bodies: Sequence[bytes]) -> Sequence[Outgoing | bool]:
        """For each body what replaces it; False drops it, True keeps it."""

    def follow(self, replaced: Sequence[int]) -> Sequence[Outgoing]:
        """What is published once the replacements at these places of the last choice are confirmed."""

    def enough(self) -> bool:
        """Whether the rotation is to end here."""


async def rotate(
    url: str,
    queue: str,
    publisher: Publisher,
    plan: Plan,
    *,
    window: int = WINDOW,
    progress: Callable[[Rotated], None] = lambda _: None,
) -> Rotated:
    """Look at every message that the queue holds now, once.

    Messages are acknowledged once what replaces them, and what follows from that, is confirmed: a crash in between
    leaves two windows of messages twice, never not at all.

    Args:
        url: the broker.
        queue: the queue.
        publisher: publishes replacements and copies.
        plan: chooses.
        window: messages that are looked at together.
        progress: is told how far it is after each window.

    Raises:
        BrokerError: the broker is away, or there is no such queue. What was not acknowledged is still there.
    """
    async with brief_connection(url, f"rotate {queue}") as connection:
        _outer, channel = await open_channel(connection)
        rotation = _Rotation(channel, queue, publisher, plan)
        await rotation.run(window, progress)
        return rotation.state


@dataclass(slots=True)
class _Window:
    """Messages that were replaced or copied, to be acknowledged once what follows is confirmed too."""

    last_tag: int
    follow: Sequence[Outgoing]


class _Rotation:
    def __init__(self, channel: Channel, queue: str, publisher: Publisher, plan: Plan) -> None:
        self._channel = channel
        self._queue = queue
        self._publisher = publisher
        self._plan = plan
        self._arrived: asyncio.Queue[DeliveredMessage] = asyncio.Queue()
        self._tag: str | None = None
        #: The window before, whose follow-up is published together with the next one's replacements.
        self._open: _Window | None = None
        self.state = Rotated()

    async def run(self, window: int, progress: Callable[[Rotated], None]) -> None:
        declared = await self._channel.queue_declare(self._queue, passive=True, timeout=ANSWER_TIMEOUT)
        self.state.total = total = declared.message_count or 0
        # whole windows, after one of what is left over: so no copy of ours is delivered before all were looked at
        for size, windows in ((total % window, 1), (window, total // window)):
            if size and windows and not await self._consume(size, windows, progress):
                return

    async def _consume(self, size: int, windows: int, progress: Callable[[Rotated], None]) -> bool:
        """Deal with so many windows; False where the plan has enough or the queue has no more."""
        ahead = min(windows, AHEAD)
        await self._channel.basic_qos(prefetch_count=size * ahead, timeout=ANSWER_TIMEOUT)
        consuming = await self._channel.basic_consume(self._queue, self._arrived.put, timeout=ANSWER_TIMEOUT)
        self._tag = consuming.consumer_tag
        going_on = True
        for number in range(windows):
            messages = await self._window(size)
            before = await self._deal_with(messages)
            going_on = len(messages) == size and not self._plan.enough()
            if not going_on or number - 1 + ahead >= windows:
                await self._cancel()  # acknowledging the window before would bring more than there are to look at
            await self._acknowledge(before)
            progress(self.state)
            if not going_on:
                break
        await self._end()
        progress(self.state)
        return going_on

    async def _end(self) -> None:
        """Deal with whatever else was delivered, and acknowledge the rest."""
        await self._cancel()
        late = [self._arrived.get_nowait() for _ in range(self._arrived.qsize())]
        await self._acknowledge(await self._deal_with(late))
        await self._acknowledge(await self._deal_with([]))

    async def _cancel(self) -> None:
        """Be delivered no more; what is on its way is here once the broker has answered."""
        tag, self._tag = self._tag, None
        if tag is not None:
            await self._channel.basic_cancel(tag, timeout=ANSWER_TIMEOUT)

    async def _acknowledge(self, window: _Window | None) -> None:
        if window is not None:
            await self._channel.basic_ack(window.last_tag, multiple=True)

    async def _window(self, size: int) -> list[DeliveredMessage]:
        """The next messages, fewer where no more come."""
        messages: list[DeliveredMessage] = []
        while len(messages) < size:
            try:
                async with asyncio.timeout(IDLE):
                    messages.append(await self._arrived.get())
            except TimeoutError:
                if self._channel.is_closed:
                    raise ConnectionResetError("the connection was lost") from None
                break
        return messages

    async def _deal_with(self, messages: Sequence[DeliveredMessage]) -> _Window | None:
        """Publish what replaces these messages, or their copies, and what follows from the window before: that one."""
        before, self._open = self._open, None
        choices = await self._plan.choose([bytes(message.body) for message in messages]) if messages else []
        first = [
            choice if isinstance(choice, Outgoing) else _copy(self._queue, messages[i])
            for i, choice in enumerate(choices)
            if choice is not False
        ]
        places = [i for i, choice in enumerate(choices) if choice is not False]
        follow = before.follow if before is not None else []
        returned = await self._publisher.publish([*first, *follow])
        self._check(returned, len(first))
        unroutable = {places[at] for at in returned if at < len(first)}
        await self._keep([messages[i] for i in sorted(unroutable)])
        done = [i for i, choice in enumerate(choices) if isinstance(choice, Outgoing) and i not in unroutable]
        if messages:
            self._open = _Window(int(messages[-1].delivery_tag or 0), self._plan.follow(done))
        self.state.looked_at += len(messages)
        self.state.replaced += len(done)
        self.state.dropped += sum(choice is False for choice in choices)
        self.state.unroutable += len(unroutable)
        return before

    def _check(self, returned: Sequence[int], first: int) -> None:
        """What follows must have been taken: nothing is acknowledged else."""
        if any(at >= first for at in returned):
            raise BrokerError("a queue is missing: run `dispatcher topology apply`, then do this again")

    async def _keep(self, messages: Sequence[DeliveredMessage]) -> None:
        """Put copies of messages at the queue's tail."""
        if messages and await self._publisher.publish([_copy(self._queue, message) for message in messages]):
            raise BrokerError(f"the queue {self._queue} has gone: run `dispatcher topology apply`")


def _copy(queue: str, message: DeliveredMessage) -> Outgoing:
    headers = message.header.properties.headers or {}
    ours = {name: value for name, value in headers.items() if name in OUR_HEADERS}
    return Outgoing("", queue, bytes(message.body), ours or None)
