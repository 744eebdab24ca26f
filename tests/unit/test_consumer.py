"""What a consumer holds: the beginning of what is too large, and no more bytes than it may."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field
from typing import Any, cast

import pytest
from pamqp.body import ContentBody
from pamqp.commands import Basic
from pamqp.header import ContentHeader

from config import load_settings
from dispatcher.edges.amqp.consumer import Consumer, Delivery, Subscription, _Session
from dispatcher.services.intake import Intake

QUEUE = "q"


class Channel:
    """The frames of messages with bodies of these sizes, ten bytes a frame."""

    def __init__(self, *sizes: int) -> None:
        self._frames: list[Any] = []
        for size in sizes:
            self._frames.append(ContentHeader(0, size, Basic.Properties()))
            self._frames += [ContentBody(b"x" * min(10, size - at)) for at in range(0, size, 10)]
        self.count = len(sizes)

    async def _get_frame(self) -> Any:
        return self._frames.pop(0)

    async def deliver(self, consumer: Consumer, session: _Session) -> None:
        """Have the consumer read every message, one after the other."""
        for tag in range(1, self.count + 1):
            frame = Basic.Deliver(consumer_tag=QUEUE, delivery_tag=tag, exchange="", routing_key="k")
            await consumer._deliver(session, frame)


def made(largest: int | None = None, most: int | None = None) -> tuple[Consumer, list[Delivery]]:
    """A consumer without a connection, and what it was delivered."""
    taken: list[Delivery] = []
    subscription = Subscription(QUEUE, 100, largest)
    return Consumer("amqp://nowhere", "test", [subscription], taken.append, max_held_bytes=most), taken


def consuming(channel: Channel) -> _Session:
    """A session that consumes the queue."""
    session = _Session(cast(Any, channel), 0.0)
    session.queues[QUEUE] = QUEUE
    session.kept = None
    return session


async def test_of_a_body_that_is_too_large_the_beginning_is_kept() -> None:
    """What comes after it is whole: every frame of the large one was read."""
    consumer, taken = made(largest=30)
    channel = Channel(1_000, 30, 31, 0)
    await channel.deliver(consumer, consuming(channel))
    assert [(len(d.body), d.size, d.cut_from) for d in taken] == [
        (30, 1_000, 1_000),
        (30, 30, None),
        (30, 31, 31),
        (0, 0, None),
    ]


async def settled(task: asyncio.Task[None]) -> None:
    """Let a task go as far as it goes."""
    for _ in range(20):
        await asyncio.sleep(0)
        if task.done():
            return


async def test_reading_waits_while_too_many_bytes_are_held() -> None:
    """And goes on with what is done; a message that is too large alone is read alone."""
    consumer, taken = made(most=50)
    channel = Channel(20, 20, 20, 70, 20)
    session = consuming(channel)
    reading = asyncio.create_task(channel.deliver(consumer, session))
    seen = []
    for done in range(5):
        await settled(reading)
        seen.append([d.size for d in taken[done:]])
        consumer.done(taken[done])
    await settled(reading)
    assert seen == [[20, 20], [20, 20], [20], [70], [20]]
    assert reading.done()
    assert session.held == 0


async def test_without_a_limit_reading_never_waits() -> None:
    """Only who asks for it is held up."""
    consumer, taken = made()
    channel = Channel(*[10_000] * 50)
    await asyncio.wait_for(channel.deliver(consumer, consuming(channel)), 10)
    assert len(taken) == 50


@dataclass
class Cancelling:
    """A channel that notes what is cancelled on it."""

    cancelled: list[str] = field(default_factory=list)
    broken: bool = False

    async def basic_cancel(self, tag: str, timeout: float) -> None:
        """As aiormq's."""
        if self.broken:
            raise TimeoutError
        self.cancelled.append(tag)


def pausing(channel: Cancelling) -> Consumer:
    """A consumer of the queue on this channel."""
    consumer, _ = made()
    session = consumer._session = _Session(cast(Any, channel), 0.0)
    session.queues["tag"], session.tags[QUEUE] = QUEUE, "tag"
    consumer._link.up.set()
    return consumer


async def test_a_queue_that_is_not_consumed_can_be_paused_again() -> None:
    """What was kept until it was due, or asked about, becomes ready after the pause: it is given back then."""
    channel = Cancelling()
    consumer = pausing(channel)
    await consumer.pause([QUEUE])
    await consumer.pause([QUEUE])
    assert (channel.cancelled, consumer.paused, consumer.ready) == (["tag"], {QUEUE}, True)


async def test_a_pause_without_an_answer_costs_the_connection() -> None:
    """The queue could be without a consumer for good, and the service say that it is ready."""
    consumer = pausing(Cancelling(broken=True))
    await consumer.pause([QUEUE])
    assert not consumer.ready


@pytest.mark.parametrize(
    ("limit", "prefetch", "largest"), [(1_024, 500, 131_072), (262_144, 500, 262_144), (8_388_608, 16, 8_388_608)]
)
async def test_intake_holds_fewer_messages_where_they_may_be_larger(limit: int, prefetch: int, largest: int) -> None:
    """What it may hold at once is 128 MiB, whatever the limits; the default ones leave the prefetch as it is."""
    intake = Intake(load_settings({"DISPATCHER_INTAKE__MAX_BODY_BYTES": str(limit)}))
    own, *others = intake._consumer._subscriptions
    assert (own.prefetch, own.largest) == (prefetch, largest)
    assert {(other.prefetch, other.largest) for other in others} == {(min(50, prefetch), largest)}
