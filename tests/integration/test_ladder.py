"""The delay ladder on a real broker, and the worker that keeps for some milliseconds what leaves it early."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from datetime import timedelta
from typing import Any

import pika.exceptions
import pytest
import pytest_asyncio

from consumers import Context, Registry
from consumers.worker import Worker
from dispatcher.core import ladder
from dispatcher.edges import clock
from dispatcher.services.intake import Intake
from dispatcher.services.recorder import Recorder
from schemas import WorkMessage
from tests.conftest import run_services
from tests.support import Installation, eventually
from tests.sweep import take

pytestmark = pytest.mark.integration

jobs = Registry()
BACKOFFS = (0.125, 0.25, 0.375, 0.5, 0.875, 1.0, 1.875)
#: A step that says it is due long after the ladder lets it go: its worker's clock was wrong, or ours is.
AN_HOUR = 3_600_000


@jobs.handler("l.flaky")
async def flaky(payload: dict[str, Any], ctx: Context) -> None:
    """Fail the first time."""
    if ctx.attempt == 1:
        raise ConnectionError("not yet")


@pytest_asyncio.fixture
async def work(installed: Installation) -> AsyncIterator[Installation]:
    """An installation whose work queue is empty before and after."""
    queue = installed.names.work_queue("default", "normal")
    installed.drain(queue)
    yield installed
    installed.drain(queue)


def a_worker(installation: Installation) -> Worker:
    """A worker of this module's handlers."""
    return Worker(installation.settings, jobs, "tests.integration.test_ladder:jobs")


def step(job_id: str, due_at: int) -> bytes:
    """The second attempt of a job that nobody published."""
    now = clock.now_ms()
    return WorkMessage(
        app="shop", id=job_id, n=2, seq=2, type="l.flaky", lane="default", priority="normal",
        accepted_at=now, payload={}, due_at=due_at,
    ).encode()  # fmt: skip


async def test_no_retry_is_early(work: Installation) -> None:
    """Backoffs of one to four hops, many at once: attempt 2 never starts before its time."""
    key = await work.create_key()
    settings = work.settings
    sent = {f"l-{n}": BACKOFFS[n % len(BACKOFFS)] for n in range(140)}
    async with run_services(Intake(settings), Recorder(settings), a_worker(work)):
        work.publish_many(
            [("l.flaky", {"id": job, "retry": {"base": base, "jitter": 0}}) for job, base in sent.items()], key
        )
        waits = {job: await wait_of(work, job) for job in sent}
    early = {job: wait for job, wait in waits.items() if wait < timedelta(seconds=sent[job])}
    assert early == {}


async def wait_of(installation: Installation, job: str) -> timedelta:
    """From the end of the first attempt to the start of the second."""
    first, second = (await installation.finished(job))["attempts"]
    wait: timedelta = second["started_at"] - first["finished_at"]
    return wait


async def test_what_left_the_ladder_waits_for_a_worker_without_end(work: Installation) -> None:
    """The lifetime that the message had in the ladder is not one in its work queue."""
    way = ladder.enter(0.375, "default", "normal")
    queue = work.names.work_queue("default", "normal")
    work.publish(way.routing_key, step("waits", clock.now_ms()), exchange=work.names.delays, expiration="20")
    await eventually(lambda: work.depth(queue) == 1, "it came through two levels")
    (message,) = take(work, queue)
    assert message.properties.expiration is None
    assert message.routing_key == way.routing_key == "default.normal.01.00"


async def test_a_step_is_not_kept_longer_than_it_can_be_early(work: Installation) -> None:
    """Where clocks differ it runs all the same."""
    key = ladder.enter(0.125, "default", "normal").routing_key
    async with run_services(Recorder(work.settings), a_worker(work)):
        work.publish(key, step("skewed", clock.now_ms() + AN_HOUR), exchange=work.names.due)
        document = await work.finished("skewed")
    assert [attempt["n"] for attempt in document["attempts"]] == [2]


async def test_a_step_that_is_kept_goes_back_when_the_worker_stops(work: Installation) -> None:
    """It has spent nothing and waits for the next worker."""
    key = ladder.enter(ladder.MAX_DELAY, "default", "normal").routing_key  # the longest: 20 levels
    worker = a_worker(work)
    async with run_services(worker):
        work.publish(key, step("kept", clock.now_ms() + AN_HOUR), exchange=work.names.due)
        await eventually(lambda: worker._early, "it is kept", every=0.005)
        await asyncio.wait_for(worker.stop(), 30)
    (message,) = take(work, work.names.work_queue("default", "normal"))
    assert WorkMessage.decode(message.body).id == "kept"
    assert work.job("kept") is None


async def test_history_is_asked_only_about_steps_that_may_have_a_double(work: Installation) -> None:
    """Not about a retry that the worker sent itself; about one that comes from elsewhere."""
    key = await work.create_key()
    worker = a_worker(work)
    asked: list[str] = []
    is_past = worker._history.is_past

    async def noted(message: WorkMessage) -> bool:
        asked.append(message.id)
        return await is_past(message)

    worker._history.is_past = noted  # type: ignore[method-assign]
    async with run_services(Intake(work.settings), Recorder(work.settings), worker):
        work.publish("l.flaky", {"id": "own", "retry": {"base": 0.25}}, key)
        assert len((await work.finished("own"))["attempts"]) == 2
        way = ladder.enter(0.125, "default", "normal")
        work.publish(way.routing_key, step("foreign", clock.now_ms()), exchange=work.names.delays)
        await work.finished("foreign")
    assert asked == ["foreign"]


def test_the_broker_has_every_level_with_its_arguments(installed: Installation) -> None:
    """Declared again with arguments written by hand, each level up to 2^16 s is the same; a millisecond off is not."""
    names = installed.names
    for level in range(20):
        arguments = {
            "x-queue-type": "quorum",
            "x-message-ttl": 125 * 2**level - 60,
            "x-dead-letter-exchange": f"{names.prefix}after.v1.{level:02d}",
            "x-dead-letter-strategy": "at-least-once",
            "x-overflow": "reject-publish",
            "x-delivery-limit": 2**31 - 1,
        }
        with installed.channel() as channel:
            channel.queue_declare(names.delay(level), durable=True, arguments=arguments)
            with pytest.raises(pika.exceptions.ChannelClosedByBroker, match="x-message-ttl"):
                channel.queue_declare(
                    names.delay(level),
                    durable=True,
                    arguments=arguments | {"x-message-ttl": arguments["x-message-ttl"] + 1},
                )
