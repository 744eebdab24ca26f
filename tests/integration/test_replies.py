"""Intake's answers: what they say, and where they never go."""

from __future__ import annotations

import json
import uuid
from collections.abc import AsyncIterator, Iterator
from typing import Any

import pika
import pytest
import pytest_asyncio

from dispatcher import composition
from dispatcher.services.intake import Intake
from tests.conftest import make_settings, run_services
from tests.support import Installation, eventually, taken
from tests.sweep import take

pytestmark = pytest.mark.integration

#: The pseudo-queue from which a client reads direct replies.
DIRECT = "amq.rabbitmq.reply-to"

Shop = tuple[Installation, str]


@pytest.fixture(scope="module")
def installed() -> Iterator[Installation]:
    """An installation that allows replies to "answers." and, carelessly, to everything under its own prefix."""
    prefix = f"t{uuid.uuid4().hex[:10]}."
    allowed = json.dumps([f"{prefix}answers.", prefix])
    installation = Installation(
        make_settings(DISPATCHER_AMQP__PREFIX=prefix, DISPATCHER_INTAKE__REPLY_PREFIXES=allowed)
    )
    installation.apply()
    yield installation
    installation.remove()


@pytest_asyncio.fixture
async def shop(installed: Installation) -> AsyncIterator[Shop]:
    """Intake running, and a key."""
    key = await installed.create_key()
    async with run_services(Intake(installed.settings)):
        yield installed, key


class Caller:
    """A client in plain pika that waits for answers in a queue of its own."""

    def __init__(self, installation: Installation, queue: str) -> None:
        self._names = installation.names
        self._connection = pika.BlockingConnection(pika.URLParameters(installation.amqp_url))
        self.channel = self._connection.channel()
        if queue != DIRECT:
            name = "" if queue == "amq.gen-" else installation.names.prefix + queue
            queue = self.channel.queue_declare(name, exclusive=True).method.queue
        self.queue = queue
        self.answers: list[tuple[Any, bytes]] = []
        self.channel.basic_consume(queue, self._answered, auto_ack=True)

    def _answered(self, _channel: Any, _method: Any, properties: Any, body: bytes) -> None:
        self.answers.append((properties, body))

    def ask(self, body: bytes, key: str | None, correlation: str | None, reply_to: str | None = None) -> None:
        """Publish with a reply_to."""
        sent = pika.BasicProperties(
            delivery_mode=2, headers={"x-api-key": key} if key else {}, correlation_id=correlation,
            reply_to=reply_to or self.queue,
        )  # fmt: skip
        self.channel.basic_publish(self._names.jobs, "r.one", body, sent)

    async def answer(self) -> tuple[Any, dict[str, Any]]:
        """Wait for the next answer: its properties and its document."""

        def arrived() -> bool:
            self._connection.process_data_events(0)
            return bool(self.answers)

        await eventually(arrived, "an answer")
        properties, body = self.answers.pop(0)
        return properties, json.loads(body)

    def close(self) -> None:
        """Close the connection, and with it the queue."""
        self._connection.close()


QUEUES = [DIRECT, "amq.gen-", "answers.of-mine"]


@pytest.mark.parametrize("queue", QUEUES)
async def test_both_answers_have_the_documented_shape(shop: Shop, queue: str) -> None:
    """Accepted and rejected, each with the question's correlation id."""
    installation, key = shop
    caller, asked = Caller(installation, queue), f"asked-by-{QUEUES.index(queue)}"
    try:
        caller.ask(b'{"id":"%s"}' % asked.encode(), key, "first")
        properties, answer = await caller.answer()
        assert answer == {"id": asked, "status": "accepted"}
        assert properties.correlation_id == "first"
        assert properties.content_type == "application/json"
        assert not properties.headers
        caller.ask(b"{}", key, "x" * 255)
        properties, answer = await caller.answer()
        assert uuid.UUID(answer["id"]).version == 7
        assert properties.correlation_id == "x" * 255
        caller.ask(b'{"id":"refused","priority":"urgent"}', key, "third")
        properties, answer = await caller.answer()
        assert answer.keys() == {"id", "status", "error"}
        assert answer["status"] == "rejected"
        assert answer["id"] != "refused"
        assert answer["error"].keys() == {"code", "message"}
        assert answer["error"]["code"] == "invalid_field"
        assert properties.correlation_id == "third"
        caller.ask(b"{}", None, "fourth")
        properties, answer = await caller.answer()
        assert answer["id"] is None
        assert answer["error"]["code"] == "missing_key"
        assert properties.correlation_id == "fourth"
    finally:
        caller.close()


async def test_an_answer_repeats_no_key(shop: Shop) -> None:
    """A key in the correlation id is not sent back."""
    installation, key = shop
    caller = Caller(installation, DIRECT)
    try:
        caller.ask(b"{}", key, f"id-{key}")
        properties, answer = await caller.answer()
        assert answer["status"] == "accepted"
        assert properties.correlation_id is None
    finally:
        caller.close()


async def test_without_correlation_id_there_is_an_answer_all_the_same(shop: Shop) -> None:
    """It has none then."""
    installation, key = shop
    caller = Caller(installation, DIRECT)
    try:
        caller.ask(b"{}", key, None)
        properties, _ = await caller.answer()
        assert properties.correlation_id is None
    finally:
        caller.close()


async def test_no_answer_goes_to_a_queue_that_is_not_a_clients(shop: Shop) -> None:
    """Not to ours, whatever the configuration allows, nor to any other name; intake goes on."""
    installation, key = shop
    topology = composition.topology_of(installation.settings)
    caller = Caller(installation, DIRECT)
    other = f"other-{uuid.uuid4().hex}"
    caller.channel.queue_declare(other, exclusive=True)
    ours = [queue.name for queue in topology.queues]
    try:
        for reply_to in (*ours, other, f"{installation.names.prefix}answers"):
            caller.ask(b'{"payload":{"asked":"accepted"}}', key, "never", reply_to)
            caller.ask(b"[", key, "never", reply_to)
        caller.ask(b'{"id":"last"}', key, "last")
        properties, answer = await caller.answer()
        assert (properties.correlation_id, answer["id"]) == ("last", "last")
        for queue in (*ours, other):
            with_answer = [m for m in _read(caller, queue) if b'"status"' in m]
            assert with_answer == [], queue
    finally:
        caller.close()


def _read(caller: Caller, queue: str) -> list[bytes]:
    return [body for _, _, body in taken(caller.channel, queue)]


async def test_an_answer_that_reaches_nobody_blocks_nothing(shop: Shop) -> None:
    """Queues that do not exist, forged direct addresses, a caller that has gone: the next caller is answered."""
    installation, key = shop
    queue = installation.names.work_queue("default", "normal")
    take(installation, queue)
    caller = Caller(installation, DIRECT)
    gone = Caller(installation, DIRECT)
    try:
        for reply_to in (
            "amq.gen-nobody", "amq.gen-", f"{DIRECT}.", f"{DIRECT}.forged", f"{DIRECT}.g1hkAA9yZXBseUAxMjM0",
            f"{DIRECT}." + "x" * 230, f"{installation.names.prefix}answers.nobody", "amq.gen-ü",
        ):  # fmt: skip
            caller.ask(b"{}", key, "lost", reply_to)
            caller.ask(b"[", key, "lost", reply_to)
        gone.ask(b"{}", key, "gone")
        gone.close()
        caller.ask(b'{"id":"served"}', key, "served")
        properties, answer = await caller.answer()
        assert (properties.correlation_id, answer["id"]) == ("served", "served")
    finally:
        caller.close()
    accepted: list[Any] = []

    def all_there() -> bool:
        accepted.extend(take(installation, queue))
        return len(accepted) == 10

    await eventually(all_there, "every job of a caller without answer is accepted")
