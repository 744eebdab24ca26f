"""A queue is deleted under its consumer: it is declared anew and consumed again, without an operator."""

from __future__ import annotations

from collections.abc import Callable

import pika.exceptions
import pytest

from config import Settings
from dispatcher.core.topology import Names
from dispatcher.edges.amqp import Consumer, Subscription
from dispatcher.services.host import Service
from dispatcher.services.intake import Intake
from dispatcher.services.recorder import Recorder
from dispatcher.services.scheduler import Scheduler
from tests.conftest import run_services
from tests.support import Installation, eventually

pytestmark = pytest.mark.integration


def consumers(installation: Installation, queue: str) -> int:
    """How many consume a queue; none where it is not there."""
    with installation.channel() as channel:
        try:
            return int(channel.queue_declare(queue, passive=True).method.consumer_count)
        except pika.exceptions.ChannelClosedByBroker:
            return 0


@pytest.mark.parametrize(
    ("service", "queue"),
    [
        (Intake, lambda names: names.intake),
        (Recorder, lambda names: names.history),
        (Scheduler, lambda names: names.stray),
    ],
)
async def test_a_service_declares_a_queue_that_was_deleted(
    service: Callable[[Settings], Service], queue: Callable[[Names], str], installed: Installation
) -> None:
    """It consumes it again, and is ready only then."""
    name = queue(installed.names)
    running = service(installed.settings)
    async with run_services(running):
        with installed.channel() as channel:
            channel.queue_delete(name)
        await eventually(lambda: not running.checks()["consumer"], "the loss is noticed", every=0)
        await eventually(lambda: running.checks()["consumer"], "it consumes again", timeout=20)
        assert consumers(installed, name) == 1


async def test_a_queue_that_was_never_there_is_not_declared(installed: Installation) -> None:
    """It may be a wrong prefix: the consumer waits for `dispatcher topology apply`."""
    calls: list[str] = []

    async def missing() -> None:
        calls.append("missing")

    nowhere = f"{installed.names.prefix}nowhere"
    consumer = Consumer(installed.amqp_url, "test", [Subscription(nowhere, 1)], lambda _: None, on_missing=missing)
    await consumer.start()
    try:
        await eventually(lambda: "topology apply" in consumer._link.problem, "it says what to do")
        assert not calls
        with installed.channel() as channel:
            channel.queue_declare(nowhere, durable=True)
        await eventually(lambda: consumer.ready, "it consumes", timeout=20)
        with installed.channel() as channel:
            channel.queue_delete(nowhere)
        await eventually(lambda: calls, "a queue that was there is missed")
    finally:
        await consumer.close()
