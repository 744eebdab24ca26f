"""Connections that end, or fall silent, under their users: nobody waits for them."""

from __future__ import annotations

import asyncio
import time

import pytest

from dispatcher.edges.amqp import Consumer, Delivery, Outgoing, Publisher, Subscription
from dispatcher.edges.amqp.publisher import AGAIN_HEADER
from dispatcher.edges.mongo import Database
from tests.proxy import outage
from tests.support import Installation, eventually

pytestmark = pytest.mark.integration

MESSAGES = 40


def fill(installation: Installation) -> str:
    """A queue with messages."""
    queue = installation.names.rejected
    installation.publish_many([(queue, str(number).encode()) for number in range(MESSAGES)], exchange="")
    return queue


async def test_acknowledging_does_not_wait_for_a_connection_that_is_closing(installed: Installation) -> None:
    """Many flushes, more than aiormq's queue has room for: each returns, and the messages come again."""
    queue = fill(installed)
    held: list[Delivery] = []
    consumer = Consumer(installed.amqp_url, "test", [Subscription(queue, MESSAGES)], held.append)
    await consumer.start()
    try:
        await eventually(lambda: len(held) == MESSAGES, "all are delivered")
        first, held[:] = held[:], []
        consumer._link.drop("a test")
        await asyncio.sleep(0)  # the link begins to close it
        for number, delivery in enumerate(first):
            if number % 2:
                await asyncio.wait_for(consumer.give_back(delivery), 15)
            else:
                consumer.done(delivery)
                await asyncio.wait_for(consumer.flush(), 15)
        given_back = {delivery.body for delivery in first[1::2]}
        again: set[bytes] = set()

        async def all_again() -> bool:
            taken, held[:] = held[:], []
            for delivery in taken:
                again.add(delivery.body)
                consumer.done(delivery)
            await asyncio.wait_for(consumer.flush(), 15)
            return again >= given_back

        await eventually(all_again, "what was given back is delivered again")
    finally:
        await consumer.close()
        installed.drain(queue)


async def test_publishing_does_not_wait_for_a_connection_that_is_closing(installed: Installation) -> None:
    """Publishes that meet a closing connection are sent again on the next one."""
    queue = installed.names.rejected
    publisher = Publisher(installed.amqp_url, "test")
    await publisher.start()
    try:
        await publisher.wait_ready()
        publishing = []
        for number in range(MESSAGES):
            message = Outgoing("", queue, str(number).encode())
            publishing.append(asyncio.create_task(publisher.publish([message])))
            if number == MESSAGES // 2:
                await asyncio.sleep(0)
                publisher._link.drop("a test")
        returned = await asyncio.wait_for(asyncio.gather(*publishing), 20)
    finally:
        await publisher.close()
    assert returned == [[]] * MESSAGES
    bodies = {body for _, body in installed.drain(queue)}
    assert bodies == {str(number).encode() for number in range(MESSAGES)}


async def test_every_queue_is_consumed_before_anything_is_handed_on(installed: Installation) -> None:
    """The work that the first queue makes would keep the others waiting, seconds long where much has piled up."""
    first, last = fill(installed), installed.names.stray
    consumed: list[int] = []

    def noted(_: Delivery) -> None:
        with installed.channel() as channel:
            consumed.append(channel.queue_declare(last, passive=True).method.consumer_count)

    subscriptions = [Subscription(queue, MESSAGES) for queue in (first, installed.names.unrouted, last)]
    consumer = Consumer(installed.amqp_url, "test", subscriptions, noted)
    await consumer.start()
    try:
        await eventually(lambda: len(consumed) == MESSAGES, "all are handed on")
    finally:
        await consumer.close()
        installed.drain(first)
    assert consumed == [1] * MESSAGES


async def test_what_the_broker_refuses_is_published_again_and_again(
    installed: Installation, caplog: pytest.LogCaptureFixture
) -> None:
    """More and more rarely, with a log that says so, and names a queue; it is not lost."""
    queue = f"{installed.names.prefix}full"
    publisher = Publisher(installed.amqp_url, "test")
    await publisher.start()
    with installed.channel() as channel:
        full = {"x-max-length": 1, "x-overflow": "reject-publish"}
        channel.queue_declare(queue, exclusive=True, arguments=full)
        try:
            assert await publisher.publish([Outgoing("", queue, b"first")]) == []
            publishing = asyncio.create_task(publisher.publish([Outgoing("", queue, b"second")]))
            await eventually(lambda: publisher.unknown >= 4, "it was tried four times")
            assert not publishing.done()
            assert "the broker refused" in caplog.text
            assert queue in caplog.text
            channel.queue_purge(queue)
            assert await asyncio.wait_for(publishing, 30) == []
            _, properties, body = channel.basic_get(queue)
            assert (body, properties.headers) == (b"second", {AGAIN_HEADER: True})
        finally:
            await publisher.close()


@pytest.mark.parametrize("how", ["silent", "gone"])
async def test_a_database_that_is_away_holds_up_nobody_who_stops(installed: Installation, how: str) -> None:
    """The driver says goodbye to the server and waits for its answer; we do not."""
    url = installed.environment()["DISPATCHER_MONGO__URL"]
    with outage(url) as away:
        database = Database(away.proxy.url(url).partition("?")[0] + "?directConnection=true", "test")
        await database.ping()
        if how == "silent":
            away.proxy.stall()
        else:
            await asyncio.to_thread(away.begin)
        began = time.monotonic()
        database.close()
        assert time.monotonic() - began < 1.5
