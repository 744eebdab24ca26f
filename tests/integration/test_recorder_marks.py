"""Marks in the queue of events: who asks hears from the recorder once all that was published before is written."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import pytest
import pytest_asyncio

from dispatcher.edges.amqp import Peers
from dispatcher.services.recorder import Recorder
from schemas.events import MARK
from tests.conftest import run_services
from tests.support import Installation, eventually, finished_job

pytestmark = pytest.mark.integration


@pytest_asyncio.fixture
async def peers(installed: Installation) -> AsyncIterator[Peers]:
    """Somebody who asks."""
    made = Peers(installed.settings.amqp.url.get_secret_value(), "test", installed.names.peers, lambda _: None)
    await made.start()
    await eventually(lambda: made.ready, "it is connected")
    yield made
    await made.close()


async def test_a_mark_is_answered_when_what_came_before_it_is_written(installed: Installation, peers: Peers) -> None:
    """Not before, although the recorder has it."""
    recorder, written, history = Recorder(installed.settings), asyncio.Event(), installed.names.history
    record = recorder._jobs.record

    async def slow(jobs: Any) -> Any:
        await written.wait()
        return await record(jobs)

    recorder._jobs.record = slow  # type: ignore[method-assign]
    async with run_services(recorder):
        installed.publish(history, finished_job("before"), exchange="")
        asking = asyncio.create_task(peers.ask_consumer(history, MARK, 60, 60))
        await eventually(lambda: recorder._marks or installed.depth(history) == 0, "the recorder has the mark")
        done, _ = await asyncio.wait({asking}, timeout=0.5)
        assert not done
        written.set()
        assert await asyncio.wait_for(asking, 30)
        job = installed.job("before")
        assert job is not None
        assert job["state"] == "succeeded"
    assert installed.depth(history) == 0


async def test_a_mark_that_nobody_takes_is_told_of_in_time(installed: Installation, peers: Peers) -> None:
    """Whoever asks gets no for an answer, and the recorder takes all of its marks when it comes."""
    history = installed.names.history
    assert not await peers.ask_consumer(history, MARK, 0.3, 0.1)
    await eventually(lambda: installed.depth(history) >= 2, "marks wait")
    asking = asyncio.create_task(peers.ask_consumer(history, MARK, 60, 0.1))
    async with run_services(Recorder(installed.settings)):
        assert await asyncio.wait_for(asking, 30)
        await eventually(lambda: installed.depth(history) == 0, "all marks are taken")
    assert installed.depth(history) == 0


@pytest.mark.parametrize("reply_to", [None, "somebody"])
async def test_a_mark_is_answered_to_workers_alone(installed: Installation, peers: Peers, reply_to: str | None) -> None:
    """Of any other, nothing stays, and nothing is sent anywhere."""
    history = installed.names.history
    with installed.channel() as channel:
        queue = channel.queue_declare(reply_to or "", exclusive=True).method.queue
        async with run_services(Recorder(installed.settings)):
            installed.publish(history, MARK, exchange="", reply_to=reply_to)
            assert await peers.ask_consumer(history, MARK, 30, 30)  # it came after
            await eventually(lambda: installed.depth(history) == 0, "both are taken")
        assert channel.queue_declare(queue, passive=True).method.message_count == 0
    assert installed.depth(history) == 0
    assert installed.depth(installed.names.unrecorded) == 0
