"""What is mistyped or unknown is answered with a sentence that says what to do, and the right exit code."""

from __future__ import annotations

import asyncio
import os
from datetime import UTC, datetime

import pytest

from dispatcher.edges.mongo.jobs import to_bson
from tests.processes import invoke
from tests.support import Installation, eventually
from tests.unit.test_explaining import make_doc

pytestmark = pytest.mark.integration


@pytest.fixture(scope="module")
def shop(installed: Installation) -> Installation:
    """With one job."""
    now = int(datetime.now(UTC).timestamp() * 1000)
    doc = make_doc("succeeded", id="welcome-1", accepted_at=now) | {"_id": "shop:welcome-1"}
    installed.db.jobs.insert_one(to_bson(doc))
    return installed


@pytest.mark.parametrize(
    ("url", "says"),
    [
        ("mongo://127.0.0.1", "URI must begin with 'mongodb://'"),
        ("mongodb://127.0.0.1:99999", "Port must be an integer"),
        ("mongodb://u:hush@hush@127.0.0.1", "%-escapes"),
        ("mongodb://", "at least one hostname"),
    ],
)
@pytest.mark.parametrize("arguments", ["jobs list", "top --once", "run recorder"])
def test_an_address_that_is_none_of_mongodbs(shop: Installation, arguments: str, url: str, says: str) -> None:
    """The sentence names the setting and its form, and never the password."""
    finished = invoke(shop, *arguments.split(), env={"DISPATCHER_MONGO__URL": url})
    assert finished.code == 1
    assert "mongo.url (DISPATCHER_MONGO__URL) cannot be used" in finished.err
    assert says in finished.err
    assert "hush" not in finished.err


def test_another_replica_set_is_told_from_a_server_that_is_away(shop: Installation) -> None:
    """It answers; so it is not asked whether it runs."""
    url = shop.settings.mongo.url.get_secret_value().split("?")[0] + "?replicaSet=another"
    finished = invoke(shop, "jobs", "list", env={"DISPATCHER_MONGO__URL": url})
    assert finished.code == 1
    assert "not as that replica set; check replicaSet= in mongo.url" in finished.err


@pytest.mark.parametrize("url", ["http://127.0.0.1", "amqp://guest:hush@127.0.0.1:2x", "amqp://", "127.0.0.1:5672"])
def test_an_address_that_is_none_of_rabbitmqs(shop: Installation, url: str) -> None:
    """The same, as a setting that cannot be used."""
    finished = invoke(shop, "topology", "apply", env={"DISPATCHER_AMQP__URL": url})
    assert finished.code == 1
    assert "amqp.url" in finished.err
    assert "amqp://user:password@host:5672/vhost" in finished.err
    assert "hush" not in finished.err


@pytest.mark.parametrize("command", ["jobs show", "jobs explain", "jobs retry", "watch --wait 0"])
def test_an_unknown_job_is_answered_with_the_nearest(shop: Installation, command: str) -> None:
    """By its beginning or by its letters; where nothing is like it, with the list."""
    for typed in ("welcom-1", "welc"):
        finished = invoke(shop, *command.split(), typed)
        assert finished.code == 1
        assert "did you mean shop:welcome-1?" in finished.err
    assert "see: dispatcher jobs list" in invoke(shop, *command.split(), "zzzz").err


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ("--lane bulky", "lane 'bulky' is not in the configuration; there are: default, bulk"),
        ("--app shpo", "no application 'shpo' has jobs or keys; did you mean shop?"),
        ("--type email.snd", "no job of type 'email.snd' is in history; did you mean email.send?"),
        ("--type sms.*", "no job of type 'sms.*' is in history"),
        ("--state failed", "no such jobs in the database t"),
    ],
)
@pytest.mark.parametrize("command", ["jobs list", "dead list --flat", "dead list"])
def test_a_filter_that_finds_nothing_says_why(shop: Installation, command: str, options: str, says: str) -> None:
    """On stderr, with exit code 0: an empty list is an answer."""
    if command != "jobs list":
        options = options.replace("--state failed", "--type email.*")
    finished = invoke(shop, *command.split(), *options.split())
    assert finished.code == 0
    assert says in finished.err


def test_a_filter_that_finds_something_says_nothing(shop: Installation) -> None:
    """Not even of a lane that is gone."""
    assert invoke(shop, "jobs", "list", "--type", "email.*", "--app", "shop").err == ""


@pytest.mark.parametrize(
    "options", ["--run-at tomorrow", "--run-at 2026-11-26", "--delay nan", "--delay -1", "--timeout inf", "--delay 1w"]
)
def test_a_time_that_is_none_is_not_published(shop: Installation, options: str) -> None:
    """Exit code 2: it is how it was typed."""
    finished = invoke(shop, "publish", "email.send", *options.split(), env={"DISPATCHER_API_KEY": "x"})
    assert finished.code == 2
    assert options.split(maxsplit=1)[0] in finished.err
    assert shop.depth(shop.names.intake) == 0


async def test_top_knows_who_holds_what(shop: Installation) -> None:
    """From the management API: a message that a consumer holds unacknowledged; without it, nothing is claimed."""
    url = os.environ.get("DEV_MANAGEMENT_URL")
    queue = shop.names.work_queue("bulk", "low")

    def held(env: dict[str, str]) -> int | None:
        shown = invoke(shop, "top", "--once", "--interval", "0.2", "--json", env=env).json
        numbers = {(row["lane"], row["priority"]): row["unacknowledged"] for row in shown["lanes"]}
        number: int | None = numbers["bulk", "low"]
        return number

    shop.publish(queue, b"{}", exchange="")
    with shop.channel() as channel:
        assert channel.basic_get(queue)[0] is not None
        assert await asyncio.to_thread(held, {}) is None
        away = {"DISPATCHER_AMQP__MANAGEMENT_URL": "http://127.0.0.1:9"}
        assert await asyncio.to_thread(held, away) is None
        if url:
            env = {"DISPATCHER_AMQP__MANAGEMENT_URL": url}
            await eventually(lambda: asyncio.to_thread(held, env), "it is seen", timeout=30, every=0.2)
    shop.drain(queue)
