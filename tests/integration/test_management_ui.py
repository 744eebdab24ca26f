"""What docs/rabbitmq-ui.md says of RabbitMQ's management UI, asked of its API, which does what the UI's buttons do."""

from __future__ import annotations

import asyncio
import os
import secrets
import urllib.error
from collections.abc import Iterator
from dataclasses import dataclass
from urllib.parse import quote, urlsplit

import pika
import pika.exceptions
import pytest

from dev.screenshots.management import Management
from dispatcher import Client
from dispatcher.services.intake import Intake
from dispatcher.services.recorder import Recorder
from tests.conftest import run_services
from tests.support import Installation, eventually
from tests.unit.samples import make_work

pytestmark = pytest.mark.integration


@dataclass(frozen=True)
class User:
    """A user of the broker: its AMQP URL, and the management API with its rights."""

    url: str
    management: Management


def management_url() -> str:
    """Where the API is."""
    url = os.environ.get("DEV_MANAGEMENT_URL")
    assert url, "no management API: run the tests with `make test`, which starts RabbitMQ with it"
    return url


@pytest.fixture(scope="module")
def admin() -> Management:
    """With all rights."""
    return Management(management_url(), "guest", "guest")


def add_user(admin: Management, name: str, write: str, tags: str = "") -> User:
    """A user with no rights but to write to what matches."""
    password = secrets.token_hex(8)
    admin.call(f"users/{name}", {"password": password, "tags": tags}, "PUT")
    admin.call(f"permissions/%2F/{name}", {"configure": "^$", "write": write, "read": "^$"}, "PUT")
    at = urlsplit(os.environ["DISPATCHER_AMQP__URL"])
    url = f"amqp://{name}:{password}@{at.hostname}:{at.port}"
    return User(url, Management(management_url(), name, password))


@pytest.fixture
def shop(admin: Management, installed: Installation) -> Iterator[User]:
    """A client application's user."""
    name = f"shop-{secrets.token_hex(4)}"
    jobs = installed.names.jobs.replace(".", "[.]")
    yield add_user(admin, name, f"^{jobs}$")
    admin.call(f"users/{name}", method="DELETE")


@pytest.fixture
def watcher(admin: Management) -> Iterator[User]:
    """A user that may look."""
    name = f"watcher-{secrets.token_hex(4)}"
    yield add_user(admin, name, "^$", "monitoring")
    admin.call(f"users/{name}", method="DELETE")


def get_with_requeue(admin: Management, queue: str) -> None:
    """Press `Get Message(s)` with the mode that the UI proposes."""
    asked = {"count": 1, "ackmode": "ack_requeue_true", "encoding": "auto", "truncate": 50_000}
    admin.call(f"queues/%2F/{quote(queue, safe='')}/get", asked)


def test_getting_with_requeue_counts_as_a_delivery(installed: Installation, admin: Management) -> None:
    """Three looks, and the step is taken for one whose workers died."""
    queue = installed.names.work_queue("default", "low")
    installed.publish_many([(queue, make_work(id="looked-at").encode())], exchange="")
    for _ in range(3):
        get_with_requeue(admin, queue)
    with installed.channel() as channel:
        _, properties, _ = channel.basic_get(queue, auto_ack=True)
    assert properties.headers["x-delivery-count"] == 3


async def test_nobody_gets_from_a_group(installed: Installation, admin: Management) -> None:
    """The queue has a single active consumer: the API refuses."""
    queue = installed.names.group(3)
    installed.publish_many([(queue, make_work(id="member").encode())], exchange="")
    with pytest.raises(urllib.error.HTTPError) as refused:
        get_with_requeue(admin, queue)
    assert refused.value.code >= 400
    assert len(installed.drain(queue)) == 1


async def test_an_application_may_publish_and_nothing_else(installed: Installation, shop: User) -> None:
    """Its user publishes with an API key, and is told; it forges no job, takes none, and declares nothing."""
    names, settings = installed.names, installed.settings
    async with (
        run_services(Intake(settings), Recorder(settings)),
        Client(shop.url, await installed.create_key(), prefix=names.prefix) as client,
    ):
        receipt = await client.submit("ui.job", {})
        assert receipt.accepted
    step = make_work(id="forged").encode()
    for exchange, key in [(names.work, "default.normal"), ("", names.history), (names.delays, "default.normal.00")]:
        assert await asyncio.to_thread(refusal, shop, "basic_publish", exchange, key, step)
    assert await asyncio.to_thread(refusal, shop, "basic_get", names.rejected)
    assert await asyncio.to_thread(refusal, shop, "queue_declare", f"{names.prefix}mine")


def refusal(user: User, method: str, *arguments: object) -> bool:
    """Whether the broker closes the channel for want of a right."""
    connection = pika.BlockingConnection(pika.URLParameters(user.url))
    channel = connection.channel()
    channel.confirm_delivery()
    try:
        getattr(channel, method)(*arguments)
    except pika.exceptions.ChannelClosedByBroker as error:
        return error.reply_code == 403
    finally:
        connection.close()
    return False


async def test_a_watcher_sees_and_changes_nothing(installed: Installation, watcher: User) -> None:
    """With the tag monitoring and no rights the numbers are there, and purge and get are not."""
    queue = quote(installed.names.work_queue("default", "high"), safe="")
    await eventually(lambda: "messages" in watcher.management.call(f"queues/%2F/{queue}"), "the queue is shown")
    with pytest.raises(urllib.error.HTTPError) as purged:
        watcher.management.call(f"queues/%2F/{queue}/contents", method="DELETE")
    with pytest.raises(urllib.error.HTTPError) as got:
        get_with_requeue(watcher.management, installed.names.work_queue("default", "high"))
    assert (purged.value.code, got.value.code) == (401, 401)
