"""A memory alarm blocks whoever publishes: publishes wait for its end, and are neither given up nor doubled."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager

import pika
import pytest

from dev.rabbit import LocalRabbit
from dispatcher import Client
from dispatcher.client import PublishFailed
from dispatcher.core.topology import Names, build
from dispatcher.edges.amqp import Outgoing, Probe, Publisher
from tests.faults.conftest import Servers
from tests.proxy import Proxy
from tests.support import eventually

pytestmark = pytest.mark.faults

QUEUE = "alarmed"
MESSAGES = 20
#: Seconds after which a publish counts as unknown; an alarm of a test lasts for longer.
TIMEOUT = 2.0


@pytest.fixture
def rabbit(started: Servers) -> Iterator[LocalRabbit]:
    """A broker with a queue, which the exchange of jobs feeds too."""
    rabbit, _ = started
    with pika.BlockingConnection(pika.URLParameters(rabbit.url)) as connection:
        channel = connection.channel()
        channel.exchange_declare("jobs", "topic", durable=True)
        channel.queue_declare(QUEUE, durable=True)
        channel.queue_bind(QUEUE, "jobs", "#")
        yield rabbit
        channel.queue_delete(QUEUE)


@asynccontextmanager
async def alarm(rabbit: LocalRabbit) -> AsyncIterator[None]:
    """A memory alarm as long as the block lasts."""
    await asyncio.to_thread(rabbit.ctl, "set_vm_memory_high_watermark", "absolute", "1MB")
    try:
        yield
    finally:
        await asyncio.to_thread(rabbit.ctl, "set_vm_memory_high_watermark", "absolute", "2GB")


@asynccontextmanager
async def publishing(url: str) -> AsyncIterator[Publisher]:
    """A publisher that is connected."""
    publisher = Publisher(url, "test", timeout=TIMEOUT)
    await publisher.start()
    try:
        await publisher.wait_ready()
        yield publisher
    finally:
        await publisher.close()


def publish(publisher: Publisher) -> list[asyncio.Task[list[int]]]:
    """Messages, each published for itself; the first of them makes the broker tell that it blocks."""
    return [
        asyncio.create_task(publisher.publish([Outgoing("", QUEUE, str(number).encode())]))
        for number in range(MESSAGES)
    ]


def drained(rabbit: LocalRabbit) -> list[int]:
    """Every message in the queue."""
    found = []
    with pika.BlockingConnection(pika.URLParameters(rabbit.url)) as connection:
        channel = connection.channel()
        while (answer := channel.basic_get(QUEUE, auto_ack=True))[0] is not None:
            found.append(int(answer[2]))
    return sorted(found)


def lines(caplog: pytest.LogCaptureFixture, text: str) -> int:
    """How many lines of the log say so."""
    return sum(text in record.getMessage() for record in caplog.records)


async def test_publishes_wait_for_the_end_of_an_alarm(rabbit: LocalRabbit, caplog: pytest.LogCaptureFixture) -> None:
    """None is given up however long it lasts, the publisher is not ready meanwhile, the log says it once."""
    caplog.set_level(logging.WARNING, "job_dispatcher.amqp")
    async with publishing(rabbit.url) as publisher:
        async with alarm(rabbit):
            tasks = publish(publisher)
            await eventually(lambda: not publisher.ready, "the publisher is told of the alarm")
            _, waiting = await asyncio.wait(tasks, timeout=2 * TIMEOUT)
            assert waiting
            assert (publisher.unknown, publisher.ready) == (0, False)
            assert "low on memory" in publisher.problem
        assert await asyncio.wait_for(asyncio.gather(*tasks), 20) == [[]] * MESSAGES
        assert (publisher.unknown, publisher.ready) == (0, True)
    assert drained(rabbit) == list(range(MESSAGES))
    assert lines(caplog, "the broker blocks publishing: alarm") == 1
    assert lines(caplog, "the alarm is over") == 1


async def test_a_connection_that_is_lost_while_it_is_blocked_leaves_nothing_behind(rabbit: LocalRabbit) -> None:
    """The next connection is usable, is told of the alarm anew, and every message arrives."""
    async with Proxy.before(rabbit.url) as proxy, publishing(proxy.url(rabbit.url)) as publisher:
        async with alarm(rabbit):
            tasks = publish(publisher)
            await eventually(lambda: not publisher.ready, "the publisher is told of the alarm")
            taken = proxy.taken
            proxy.cut()
            await eventually(lambda: proxy.taken > taken and publisher._link.ready, "it is connected again")
            await eventually(lambda: not publisher.ready, "it is told of the alarm again")
        assert await asyncio.wait_for(asyncio.gather(*tasks), 20) == [[]] * MESSAGES
    assert set(drained(rabbit)) == set(range(MESSAGES))


async def test_a_client_is_told_that_the_broker_blocks(rabbit: LocalRabbit) -> None:
    """Its timeout is its caller's: the publish is unknown, for the alarm, and is made once the alarm is over."""
    async with Client(rabbit.url, "key", timeout=TIMEOUT) as client:
        async with alarm(rabbit):
            results = await asyncio.gather(
                *(client.publish("demo.echo", id=str(number)) for number in range(MESSAGES)), return_exceptions=True
            )
            failed = [result for result in results if isinstance(result, PublishFailed)]
            assert failed
            assert all("low on memory" in str(error) for error in failed)
        with pika.BlockingConnection(pika.URLParameters(rabbit.url)) as connection:
            channel = connection.channel()
            count = await eventually(
                lambda: channel.queue_declare(QUEUE, passive=True).method.message_count >= MESSAGES, "all are published"
            )
        assert count
        publisher = client._publisher
        assert publisher is not None
        assert publisher.unknown == 0


@pytest.mark.long
async def test_doctor_asks_on_while_an_alarm_lasts(rabbit: LocalRabbit) -> None:
    """What it publishes is not taken; what it only asks for is answered, since that goes another way."""
    probe = Probe(rabbit.url, "alarmed")
    await probe.open()
    try:
        async with alarm(rabbit):
            _, reason, _ = await probe.accepts()
            assert "memory" in reason
            wanted = build(Names("nowhere."), ["default"])
            found = await asyncio.wait_for(probe.declared(wanted), 10)
        assert len(found.missing) == len(wanted.exchanges) + len(wanted.queues)
    finally:
        await probe.close()
