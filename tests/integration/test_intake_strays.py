"""Messages that intake has not seen, cannot judge or cannot even read: none is lost, none stops it."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any

import pika
import pytest
import pytest_asyncio

from dispatcher.services.intake import Intake
from dispatcher.services.recorder import Recorder
from tests.conftest import make_settings, run_services
from tests.support import Installation, eventually
from tests.sweep import Taken, take

pytestmark = pytest.mark.integration

Shop = tuple[Installation, str]


@pytest_asyncio.fixture
async def shop(installed: Installation) -> AsyncIterator[Shop]:
    """Intake and recorder running, and a key."""
    key = await installed.create_key()
    async with run_services(Intake(installed.settings), Recorder(installed.settings)):
        yield installed, key


async def refused(installation: Installation, count: int = 1) -> list[Taken]:
    """Wait for refusals and take them out."""
    found: list[Taken] = []

    def enough() -> bool:
        found.extend(take(installation, installation.names.rejected))
        return len(found) >= count

    await eventually(enough, f"{count} refusals")
    assert len(found) == count
    return found


async def queued(installation: Installation, count: int = 1) -> list[str]:
    """Wait for accepted jobs, take them out of their work queue, and return their ids."""
    found: list[Taken] = []

    def enough() -> bool:
        found.extend(take(installation, installation.names.work_queue("default", "normal")))
        return len(found) >= count

    await eventually(enough, f"{count} jobs queued")
    return [json.loads(message.body)["id"] for message in found]


def check_stripped(message: Taken, key: str) -> None:
    """It is a crashed_intake refusal, and nothing of the client's properties is left."""
    assert message.headers["x-rejected-reason"].startswith("crashed_intake: ")
    assert message.headers.keys() - {"x-at", "x-app", "x-type"} == {"x-rejected-reason"}
    assert not message.holds(key[-36:])
    assert message.properties.reply_to is None


async def crashed_documents(installation: Installation, app: str, count: int) -> None:
    """History has so many refusals of an app, all crashed_intake."""
    query = {"app": app, "state": "rejected", "error.type": "crashed_intake"}
    await eventually(lambda: installation.db.jobs.count_documents(query) == count, "they are in history")


async def test_unrouted_messages_are_stripped_and_refused(shop: Shop) -> None:
    """What the exchange ``unrouted`` took ends in ``rejected``; with a valid key it is recorded, claiming no id."""
    installation, _ = shop
    key = await installation.create_key(app="unrouted")
    exchange = installation.names.unrouted
    installation.publish("u.one", {"id": "lost", "payload": {"k": key}}, key, exchange=exchange, reply_to="x")
    installation.publish("u.two", b"\xff", exchange=exchange)
    installation.publish("u.two", b"{}", key[:-1], exchange=exchange)
    for message in await refused(installation, 3):
        check_stripped(message, key)
    await crashed_documents(installation, "unrouted", 1)
    assert installation.job("lost", "unrouted") is None


async def test_a_backlog_at_the_start_is_judged_with_keys(installed: Installation) -> None:
    """What waits when intake starts is neither put off nor left out of history for want of keys not read yet."""
    key = await installed.create_key(app="early")
    exchange = installed.names.unrouted
    installed.publish_many([("b.one", {})] * 20, key, exchange=exchange)
    installed.publish_many([("b.one", {"id": f"early-{number}"}) for number in range(20)], key)
    intake = Intake(installed.settings)
    async with run_services(intake, Recorder(installed.settings)):
        assert len(await refused(installed, 20)) == 20
        # in any order: those that came before the keys were read are judged a moment later
        assert sorted(await queued(installed, 20)) == sorted(f"early-{number}" for number in range(20))
        await crashed_documents(installed, "early", 20)


async def test_a_missing_binding_diverts_and_does_not_lose(shop: Shop) -> None:
    """Without intake's binding the alternate exchange takes over, and the refusal says what to do."""
    installation, key = shop
    names = installation.names
    with installation.channel() as channel:
        channel.queue_unbind(names.intake, names.jobs, "#")
    installation.publish("u.three", {}, key)
    (message,) = await refused(installation)
    check_stripped(message, key)
    assert "dispatcher topology apply" in message.headers["x-rejected-reason"]
    with installation.channel() as channel:
        channel.queue_bind(names.intake, names.jobs, "#")
    installation.publish("u.three", {"id": "bound-again"}, key)
    assert await queued(installation) == ["bound-again"]


async def test_what_was_taken_from_intake_is_stripped_and_refused(installed: Installation) -> None:
    """A message rejected out of ``intake.v1`` while intake was stopped is refused when it is back."""
    key = await installed.create_key(app="taken")
    for body in ({"id": "taken"}, {"payload": {"k": key}}):
        installed.publish("t.one", body, key)
    with installed.channel() as channel:
        for _ in range(2):
            method, _properties, _body = channel.basic_get(installed.names.intake)
            channel.basic_reject(method.delivery_tag, requeue=False)
    await eventually(lambda: installed.depth(installed.names.intake_dead) == 2, "the broker moved them")
    async with run_services(Intake(installed.settings), Recorder(installed.settings)):
        for message in await refused(installed, 2):
            check_stripped(message, key)
        await crashed_documents(installed, "taken", 2)


@pytest.mark.parametrize("exchange", ["jobs", "unrouted"])
async def test_a_clients_expiration_loses_nothing(installed: Installation, exchange: str) -> None:
    """AMQP's expiration takes a message out of a queue; it is refused then, and said so, never dropped."""
    key = await installed.create_key(app=f"hurry-{exchange}")
    target = getattr(installed.names, exchange)
    installed.publish("e.one", {"id": "late"}, key, exchange=target, expiration="1")
    await eventually(lambda: installed.depth(installed.names.intake_dead) == 1, "it expired")
    async with run_services(Intake(installed.settings), Recorder(installed.settings)):
        (message,) = await refused(installed)
        check_stripped(message, key)
        assert message.properties.expiration is None
        await crashed_documents(installed, f"hurry-{exchange}", 1)


async def test_an_accepted_job_does_not_carry_the_clients_expiration(shop: Shop) -> None:
    """Nor any other property: in the work queue it waits as long as it must."""
    installation, key = shop
    user = pika.URLParameters(installation.amqp_url).credentials.username  # the broker takes no other user_id
    installation.publish(
        "e.two", {"id": "patient"}, key, expiration="60000", priority=9, app_id="a", type="t",
        correlation_id="c", content_encoding="gzip", timestamp=1, message_id="m", user_id=user,
    )  # fmt: skip
    queue = installation.names.work_queue("default", "normal")
    (message,) = await eventually(lambda: take(installation, queue), "it is queued")
    for name in ("expiration", "priority", "app_id", "type", "correlation_id", "content_encoding", "user_id"):
        assert getattr(message.properties, name) is None
    assert message.properties.message_id != "m"
    assert message.headers == {}


async def test_cc_and_bcc_reach_no_queue_of_ours(shop: Shop) -> None:
    """RabbitMQ's sender-selected routing goes through the exchange ``jobs``, so it makes one job and no copy."""
    installation, key = shop
    names = installation.names
    ours = [names.work_queue("default", "critical"), names.rejected, names.history, "default.critical", "y.z"]
    installation.publish("c.one", {"id": "once"}, key, headers={"CC": ours, "BCC": ours})
    installation.publish("c.two", {"id": "after"}, key)
    assert await queued(installation, 2) == ["once", "after"]
    await eventually(lambda: installation.job("after"), "it is recorded")
    for queue in (names.work_queue("default", "critical"), names.rejected, names.unrouted):
        assert installation.depth(queue) == 0


def _deep(levels: int) -> list[Any]:
    value: list[Any] = []
    for _ in range(levels):
        value = [value]
    return value


@pytest.mark.parametrize(
    "properties",
    [
        {"headers": {b"\xff\xfe": "x"}},
        {"headers": {"x": {b"\xff": 1}}},
        {"headers": {"x": _deep(300)}},
        {"headers": {"x": None, "y": Decimal(-1), "z": datetime(2030, 1, 1, tzinfo=UTC)}},
        {"headers": {f"h{number}": None for number in range(10_000)}},
        {"headers": {"x-death": "no list", "x-delivery-count": 2**40, "x-first-death-queue": 1}},
        {"headers": {"traceparent": [1], "tracestate": {"a": 1}}},
        {"timestamp": 2**63},
        {"timestamp": 2**64 - 1},
        {"correlation_id": b"\xff" * 255},
        {"reply_to": b"amq.gen-\xff"},
        {"content_type": b"\xff"},
        {"content_encoding": b"\xc0\x80"},
        {"app_id": b"\xff"},
        {"type": b"\xff", "message_id": b"\xfe" * 255},
        {"cluster_id": b"\xff"},
    ],
    ids="-".join,
)
async def test_hostile_properties_stop_nothing(shop: Shop, properties: dict[str, Any]) -> None:
    """Whatever the broker lets pass in properties, with and without a key, the job is judged by what counts."""
    installation, key = shop
    headers = properties.get("headers", {})
    others = {name: value for name, value in properties.items() if name != "headers"}
    content_type = others.pop("content_type", "application/json")
    with installation.channel() as channel:
        channel.confirm_delivery()  # without confirms the broker may lose what was published just before the close
        for api_key in (None, key):
            keyed = headers | ({} if api_key is None else {"x-api-key": api_key})
            sent = pika.BasicProperties(content_type, delivery_mode=2, headers=keyed, **others)
            channel.basic_publish(installation.names.jobs, "h.one", b"{}", sent)
    (message,) = await refused(installation)
    assert message.headers["x-rejected-reason"].startswith("missing_key: ")
    assert len(await queued(installation)) == 1


async def test_a_routing_key_of_any_bytes_is_refused(shop: Shop) -> None:
    """It is no job type, and no reason to lose the connection."""
    installation, key = shop
    with installation.channel() as channel:
        channel.confirm_delivery()
        sent = pika.BasicProperties(delivery_mode=2, headers={"x-api-key": key})
        channel.basic_publish(installation.names.jobs, b"\xff\xfe" * 100, b"{}", sent)
    (message,) = await refused(installation)
    assert message.headers["x-rejected-reason"].startswith("bad_type: ")


async def test_without_a_database_messages_wait_in_the_broker(installed: Installation) -> None:
    """A key that nobody can judge is put off, with what intake needs of its headers and nothing else.

    The messages come round to intake by themselves, and become jobs when the database is back.
    """
    away = make_settings(
        DISPATCHER_AMQP__PREFIX=installed.settings.amqp.prefix, DISPATCHER_MONGO__URL="mongodb://127.0.0.1:9/"
    )
    key = await installed.create_key(app="patient")
    parent = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
    spy = spy_on(installed, installed.names.intake_deferred)
    intake = Intake(away)
    await intake.start()
    try:
        for number, trace in enumerate([parent, Decimal(-1), {"x": [1]}]):
            headers = {"traceparent": trace, "x-other": "gone"}
            installed.publish("d.one", {"id": f"deferred-{number}"}, key, headers=headers, correlation_id="c")
        seen: dict[bytes, Taken] = {}

        def all_put_off() -> bool:
            seen.update((message.body, message) for message in take(installed, spy))
            return len(seen) == 3

        await eventually(all_put_off, "they are put off")
        assert not all(intake.checks().values())
    finally:
        await intake.stop()
    assert {message.headers.get("traceparent") for message in seen.values()} == {parent, None}
    for message in seen.values():
        assert message.headers["x-api-key"] == key
        assert message.headers.keys() <= {"x-api-key", "traceparent"}
        assert message.properties.correlation_id == "c"
    ids = [f"deferred-{number}" for number in range(3)]
    async with run_services(Intake(installed.settings), Recorder(installed.settings)):
        await eventually(lambda: all(installation_has(installed, job, "patient") for job in ids), "they are jobs")
        assert sorted(await queued(installed, 3)) == ids


def spy_on(installation: Installation, exchange: str) -> str:
    """A queue that gets a copy of what a fanout exchange passes on; returns its name. It goes away by itself."""
    name = f"{exchange}.spy"
    with installation.channel() as channel:
        channel.queue_declare(name, durable=True, arguments={"x-expires": 120_000})
        channel.queue_bind(name, exchange)
    return name


def installation_has(installation: Installation, job_id: str, app: str) -> bool:
    """Whether the job is queued, as its document says."""
    return (installation.job(job_id, app) or {}).get("state") == "queued"
