"""The users of deploy/compose/users.yaml on a real broker: what each can do, and every refusal."""

from __future__ import annotations

import importlib.util
import json
import os
import urllib.error
import urllib.request
import uuid
from base64 import b64encode
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType
from typing import Any
from urllib.parse import quote, unquote, urlsplit, urlunsplit

import pika
import pika.exceptions
import pytest

from consumers import Context, Registry, Retry
from consumers.worker import Worker
from dispatcher import Client, composition
from dispatcher.core.diagnosis import Status
from dispatcher.edges.amqp.peers import Peers
from dispatcher.services.doctor import Local, diagnose
from tests.conftest import make_settings, run_services
from tests.support import Installation, eventually

pytestmark = pytest.mark.integration

SETUP = Path(__file__).resolve().parents[2] / "deploy" / "compose" / "setup.py"
PASSWORD = "only-for-this-test"
ACCESS_REFUSED = 403


def _setup() -> ModuleType:
    spec = importlib.util.spec_from_file_location("compose_setup", SETUP)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


class House:
    """An installation whose services have users of their own, made by the program that makes them for Compose."""

    def __init__(self) -> None:
        self.admin = Installation(make_settings())
        self._at = urlsplit(self.admin.amqp_url)
        self.vhost = unquote(self._at.path[1:]) or "/"
        self._unique = uuid.uuid4().hex[:10]
        management = urlsplit(os.environ.get("DEV_MANAGEMENT_URL", ""))
        if not management.hostname:
            pytest.fail("no management API is known: run the tests with `make test`, or set DEV_MANAGEMENT_URL")
        who = f"{self._at.username or 'guest'}:{self._at.password or 'guest'}"
        self.api = urlunsplit(management)
        setup = _setup()
        self._broker = setup.Broker(urlunsplit(management._replace(netloc=f"{who}@{management.netloc}")))
        self.users = setup.described()["rabbitmq"]
        for name, user in self.users.items():
            prefix = self.admin.settings.amqp.prefix
            setup.make_broker_user(self._broker, self.user(name), user, PASSWORD, vhost=self.vhost, prefix=prefix)

    def user(self, name: str) -> str:
        """The user's name on this broker."""
        return f"{name}-{self._unique}"

    def url(self, name: str) -> str:
        """The broker's address for a user."""
        host = self._at.netloc.rpartition("@")[2]
        return urlunsplit(self._at._replace(netloc=f"{self.user(name)}:{PASSWORD}@{host}"))

    def of(self, name: str) -> Installation:
        """The installation as a user sees it."""
        settings = self.admin.settings
        return Installation(
            make_settings(
                DISPATCHER_AMQP__URL=self.url(name),
                DISPATCHER_AMQP__PREFIX=settings.amqp.prefix,
                DISPATCHER_MONGO__DATABASE=settings.mongo.database,
                DISPATCHER_LANES=json.dumps(settings.lanes),
            )
        )

    def manage(self, name: str, method: str, *path: str, body: Any = None) -> int:
        """Ask the management API as a user; returns the status of its answer."""
        url = "/".join([self.api, "api", *(quote(part, safe="") for part in path)])
        authorization = "Basic " + b64encode(f"{self.user(name)}:{PASSWORD}".encode()).decode()
        headers = {"Authorization": authorization, "Content-Type": "application/json"}
        data = None if body is None else json.dumps(body).encode()
        try:
            with urllib.request.urlopen(urllib.request.Request(url, data, headers, method=method)) as answer:
                return int(answer.status)
        except urllib.error.HTTPError as error:
            return int(error.code)

    def remove(self) -> None:
        """Delete the installation and the users."""
        self.admin.remove()
        for name in self.users:
            self._broker.delete("users", self.user(name))


@pytest.fixture(scope="module")
def house() -> Iterator[House]:
    """The users, and the topology, declared by the user of our services."""
    house = House()
    try:
        house.of("dispatcher").apply()
        yield house
    finally:
        house.remove()


async def test_jobs_run_with_least_rights(house: House) -> None:
    """Services, a worker and a client, each as its own user: accepted, retried, parked, grouped; the client is told."""
    jobs = Registry()

    @jobs.handler("flaky", retry=Retry(max_attempts=2, base=0.125))
    async def flaky(payload: dict[str, Any], ctx: Context) -> None:
        if ctx.attempt == 1 or payload.get("always"):
            raise RuntimeError("not yet")

    @jobs.handler("batch")
    async def batch(payloads: list[dict[str, Any]]) -> None:
        assert payloads

    key = await house.admin.create_key()
    services = [composition.service(house.of("dispatcher").settings, name) for name in composition.SERVICES]
    worker = Worker(house.of("worker").settings, jobs, "test:jobs")
    prefix = house.admin.settings.amqp.prefix
    async with run_services(*services, worker), Client(house.url("client"), key, prefix=prefix) as client:
        retried = await client.submit("flaky", {})
        parked = await client.submit("flaky", {"always": True})
        member = await client.submit("batch", {}, group={"key": "k", "max_size": 1})
        refused = await client.submit("flaky", {}, timeout=0)
        assert None not in (retried.id, parked.id, member.id)
        assert (await house.admin.finished(retried.id))["state"] == "succeeded"
        assert (await house.admin.finished(parked.id))["state"] == "failed"
        assert (await house.admin.finished(member.id))["state"] == "succeeded"
    assert refused.code == "invalid_field"
    assert house.admin.depth(house.admin.names.parked("default")) == 1


async def test_workers_ask_one_another(house: House) -> None:
    """About a step that comes again, on the exchange of workers; the answer comes to the asker's own queue."""
    url, exchange = house.url("worker"), house.admin.names.peers
    asking = Peers(url, "asking", exchange, lambda question: None)
    answering = Peers(url, "answering", exchange, lambda question: b"heard: " + question)
    await asking.start()
    await answering.start()
    try:
        await eventually(lambda: asking.ready and answering.ready, "both are connected")
        assert await asking.ask(b"who has it?", 1.0) == [b"heard: who has it?"]
    finally:
        await asking.close()
        await answering.close()


async def test_doctor_finds_nothing_wrong_with_our_rights(house: House) -> None:
    """Every check of `dispatcher doctor` that needs RabbitMQ works as the user of our services."""
    findings = await diagnose(house.of("dispatcher").settings, Local([]))
    broken = [f for f in findings if f.status is Status.FAILED and f.check != "consumers"]
    assert broken == []


Act = Callable[[Any], object]


class Attempts:
    """A user's connection, on which it tries one thing after the other, on a channel each."""

    def __init__(self, house: House, user: str) -> None:
        self._connection = pika.BlockingConnection(pika.URLParameters(house.url(user)))

    def __enter__(self) -> Attempts:
        return self

    def __exit__(self, *_: object) -> None:
        self._connection.close()

    def refused(self, act: Act) -> bool:
        """Whether the broker closes the channel with 403 for doing that."""
        channel = self._connection.channel()
        channel.confirm_delivery()
        try:
            act(channel)
        except pika.exceptions.ChannelClosedByBroker as closed:
            if closed.reply_code != ACCESS_REFUSED:
                raise
            return True
        channel.close()
        return False


def everything(house: House) -> tuple[list[str], list[str]]:
    """The names of all exchanges and of all queues of the installation."""
    made = composition.topology_of(house.admin.settings)
    return [exchange.name for exchange in made.exchanges], [queue.name for queue in made.queues]


def publishing(exchange: str) -> Act:
    """Publish to an exchange, with a key that no queue has."""
    return lambda channel: channel.basic_publish(exchange, "~nobody", b"{}")


def test_a_client_may_publish_to_jobs_alone(house: House) -> None:
    """To no other exchange, the default one and the broker's own included: there a job could be forged."""
    exchanges, _ = everything(house)
    jobs = house.admin.names.jobs
    with Attempts(house, "client") as client:
        assert not client.refused(publishing(jobs))
        for exchange in ["", "amq.topic", "amq.direct", "amq.fanout", *exchanges]:
            if exchange != jobs:
                assert client.refused(publishing(exchange)), exchange


def test_a_client_may_read_and_change_nothing(house: House) -> None:
    """No queue, not even one of its own, can be read, declared, emptied, deleted or bound."""
    exchanges, queues = everything(house)
    attempts: dict[str, Act] = {
        "declare a queue": lambda channel: channel.queue_declare("", exclusive=True),
        "declare an exchange": lambda channel: channel.exchange_declare("mine", "fanout"),
    }
    for queue in queues:
        attempts |= {
            f"get from {queue}": lambda channel, queue=queue: channel.basic_get(queue),
            f"consume {queue}": lambda channel, queue=queue: channel.basic_consume(queue, print),
            f"purge {queue}": lambda channel, queue=queue: channel.queue_purge(queue),
            f"delete {queue}": lambda channel, queue=queue: channel.queue_delete(queue),
            f"bind {queue}": lambda channel, queue=queue: channel.queue_bind(queue, house.admin.names.jobs, "#"),
        }
    for exchange in exchanges:
        attempts[f"delete {exchange}"] = lambda channel, exchange=exchange: channel.exchange_delete(exchange)
    with Attempts(house, "client") as client:
        for what, act in attempts.items():
            assert client.refused(act), what


def test_a_worker_may_do_its_work_alone(house: House) -> None:
    """It reads work and suspects; nothing that applications published, that was refused, parked or told to history."""
    exchanges, queues = everything(house)
    names = house.admin.names
    readable = ("work.v1.", "suspect.v1.")
    with Attempts(house, "worker") as worker:
        for queue in queues:
            may = queue.removeprefix(names.prefix).startswith(readable)
            assert worker.refused(lambda channel, queue=queue: channel.basic_get(queue)) is not may, queue
            assert worker.refused(lambda channel, queue=queue: channel.queue_delete(queue)), queue
        for exchange in exchanges:
            may = exchange in (names.delays, names.peers)
            assert worker.refused(publishing(exchange)) is not may, exchange


@pytest.mark.parametrize("user", ["monitoring", "operator"])
def test_who_watches_changes_nothing(house: House, user: str) -> None:
    """It sees queues and bindings, publishes nowhere, and can neither delete, make users nor set policies."""
    exchanges, queues = everything(house)
    with Attempts(house, user) as watcher:
        for exchange in ["", *exchanges]:
            assert watcher.refused(publishing(exchange)), exchange
    assert house.manage(user, "GET", "queues", house.vhost) == 200
    assert house.manage(user, "GET", "bindings", house.vhost) == 200
    assert house.manage(user, "DELETE", "queues", house.vhost, queues[0]) in (401, 403)
    policy = {"pattern": ".*", "definition": {"max-length": 1}}
    assert house.manage(user, "PUT", "policies", house.vhost, "theirs", body=policy) in (401, 403)
    assert house.manage(user, "PUT", "users", "another", body={"password": "x", "tags": "administrator"}) in (401, 403)


def test_only_an_operator_may_look_into_queues(house: House) -> None:
    """It gets messages; who only counts them does not."""
    rejected = house.admin.names.rejected
    get: dict[str, Any] = {"count": 1, "ackmode": "ack_requeue_true", "encoding": "auto"}
    assert house.manage("operator", "POST", "queues", house.vhost, rejected, "get", body=get) == 200
    assert house.manage("monitoring", "POST", "queues", house.vhost, rejected, "get", body=get) in (400, 401, 403)


@pytest.mark.parametrize("user", ["dispatcher", "worker", "client"])
def test_programs_have_no_management(house: House, user: str) -> None:
    """A leaked password of a program opens no management UI."""
    assert house.manage(user, "GET", "overview") == 401
