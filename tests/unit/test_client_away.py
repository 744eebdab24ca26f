"""The Client while the broker is away: what it gave up is not kept."""

from __future__ import annotations

import asyncio

import pytest

from dispatcher import Client
from dispatcher.client import PublishFailed

#: Nobody listens there.
AWAY = "amqp://127.0.0.1:1"


async def test_what_failed_is_not_kept_until_the_broker_is_back() -> None:
    """Only what was under way stays, since nobody knows what became of it: a few, and a batch; no callers are left."""
    async with Client(AWAY, "key", timeout=0.1) as client:
        outbox = client._outbox
        assert outbox is not None
        for count in (1, 300, 300):
            publishes = [client.publish("a.job", {"number": number}) for number in range(count)]
            failed = await asyncio.gather(*publishes, return_exceptions=True)
            assert {type(each) for each in failed} == {PublishFailed}
            assert outbox._waiting == []
        assert outbox._entries_under_way == 1 + 300
        assert client._in_flight == set()


async def test_who_stops_waiting_takes_the_job_back() -> None:
    """A publish that is cancelled before it is under way is never sent."""
    async with Client(AWAY, "key", timeout=30) as client:
        outbox = client._outbox
        assert outbox is not None
        first = asyncio.create_task(client.publish("a.job"))
        await asyncio.sleep(0)
        while outbox._waiting:
            await asyncio.sleep(0)
        second = asyncio.create_task(client.publish("a.job"))
        await asyncio.sleep(0)
        assert len(outbox._waiting) == 1
        for task in (first, second):
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
        assert outbox._waiting == []
