"""``dispatcher doctor`` on real servers: everything that can be provoked is found, and nothing is changed."""

from __future__ import annotations

import asyncio
import json
import os
import socket
import threading
import urllib.parse
import urllib.request
import uuid
from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio

from dispatcher.core.diagnosis import CHECKS
from dispatcher.core.topology import build
from dispatcher.edges import clock
from tests.conftest import make_settings
from tests.processes import ServiceProcess, invoke
from tests.support import Installation

pytestmark = [pytest.mark.integration, pytest.mark.asyncio(loop_scope="module")]

Lines = dict[str, dict[str, str]]

COMMANDS = (("run", "intake"), ("run", "recorder"), ("run", "scheduler"), ("worker", "examples.handlers:jobs"))
AMQP_AWAY = {"DISPATCHER_AMQP__URL": "amqp://guest:hush@127.0.0.1:9/"}
MONGO_AWAY = {"DISPATCHER_MONGO__URL": "mongodb://shop:hush@127.0.0.1:9/"}


async def examined(installation: Installation, *options: str, code: int, env: Mapping[str, str] | None = None) -> Lines:
    """What doctor says, by check; its exit code must be this one."""
    finished = await asyncio.to_thread(invoke, installation, "doctor", "--json", *options, env=env)
    assert finished.code == code, finished.out
    findings = json.loads(finished.out)
    for finding in findings:
        assert sorted(finding) == ["check", "fix", "message", "status"]
        assert finding["status"] in ("ok", "warning", "failed")
        assert bool(finding["fix"]) == (finding["status"] != "ok"), finding
    assert [finding["check"] for finding in findings] == [c for c in CHECKS if c in {f["check"] for f in findings}]
    assert "hush" not in finished.out + finished.err
    return {finding["check"]: finding for finding in findings}


def bad(lines: Lines) -> dict[str, str]:
    """The status of what is not ok."""
    return {check: finding["status"] for check, finding in lines.items() if finding["status"] != "ok"}


@pytest_asyncio.fixture(loop_scope="module", scope="module")
async def healthy(installed: Installation) -> AsyncIterator[Installation]:
    """An installation with a key, and every service running."""
    await installed.create_key()
    made = [ServiceProcess(installed, *command) for command in COMMANDS]
    try:
        await asyncio.gather(*(service.__aenter__() for service in made))
        for service in made:
            await service.ready()
        yield installed
    finally:
        await asyncio.gather(*(service.__aexit__() for service in made if service.process))


@pytest.fixture
def own() -> Iterator[Installation]:
    """An installation that a test may spoil."""
    unique = uuid.uuid4().hex[:10]
    overrides = {"DISPATCHER_AMQP__PREFIX": f"t{unique}.", "DISPATCHER_MONGO__DATABASE": f"t{unique}"}
    installation = Installation(make_settings(**overrides, DISPATCHER_LANES='["default"]'))
    installation.apply()
    yield installation
    installation.remove()


async def test_a_healthy_installation_is_well(healthy: Installation) -> None:
    """Every check ok and exit code 0, again and again; what is not done by default is done when asked for."""
    assert set(await examined(healthy, code=0)) == set(CHECKS) - {"handlers"}
    lines = await examined(healthy, "--worker", "examples.handlers:jobs", code=0)
    assert bad(lines) == {}
    assert set(lines) == set(CHECKS)


async def test_it_changes_nothing(healthy: Installation) -> None:
    """Queues hold what they held, no collection and no job is new."""
    queues = [queue.name for queue in build(healthy.names, healthy.settings.lanes).queues]
    before = {queue: healthy.depth(queue) for queue in queues}, sorted(healthy.db.list_collection_names())
    await examined(healthy, code=0)
    assert before == ({queue: healthy.depth(queue) for queue in queues}, sorted(healthy.db.list_collection_names()))
    assert healthy.db.jobs.count_documents({}) == 0


async def test_it_is_read_by_people_too(healthy: Installation) -> None:
    """A line a check on stdout, without colours into a pipe; the sum on stderr."""
    finished = await asyncio.to_thread(invoke, healthy, "doctor")
    assert finished.code == 0
    lines = finished.out.splitlines()
    assert [line.split()[1].rstrip(":") for line in lines] == [check for check in CHECKS if check != "handlers"]
    assert "\x1b" not in finished.out
    assert "24 checks: 0 failed, 0 warnings" in finished.err


async def test_without_a_topology_it_says_what_to_run() -> None:
    """And declares nothing itself."""
    unique = uuid.uuid4().hex[:10]
    nowhere = Installation(
        make_settings(DISPATCHER_AMQP__PREFIX=f"t{unique}.", DISPATCHER_MONGO__DATABASE=f"t{unique}")
    )
    for _ in range(2):
        lines = await examined(nowhere, code=1)
        for check in ("topology", "indexes", "routes"):
            assert lines[check]["status"] == "failed"
            assert "dispatcher topology apply" in lines[check]["fix"]
    assert lines["consumers"]["status"] == "failed"
    assert lines["keys"]["status"] == "warning"
    assert nowhere.db.list_collection_names() == []


async def test_what_is_missing_is_named(own: Installation) -> None:
    """A queue, an exchange, an index."""
    with own.channel() as channel:
        channel.queue_delete(own.names.suspect("default"))
        channel.exchange_delete(own.names.peers)
    own.db.jobs.drop_index("type_1_accepted_at_-1")
    lines = await examined(own, code=1)
    assert own.names.suspect("default") in lines["topology"]["message"]
    assert own.names.peers in lines["topology"]["message"]
    assert lines["indexes"]["message"] == "missing: jobs (type, accepted_at)"
    assert lines["routes"]["status"] == "ok"
    await asyncio.to_thread(own.apply)
    assert set(bad(await examined(own, code=1))) == {"consumers", "keys"}


async def test_an_index_of_that_name_with_other_options_does_not_pass(own: Installation) -> None:
    """What makes it cheap is part of it."""
    own.db.jobs.drop_index("lane_1_priority_1_run_1_accepted_at_1")
    own.db.jobs.create_index([("lane", 1), ("priority", 1), ("run", 1), ("accepted_at", 1)])
    assert (await examined(own, code=1))["indexes"]["message"] == "missing: jobs (lane, priority, run, accepted_at)"


async def test_wrong_arguments_are_found(own: Installation) -> None:
    """A queue and an exchange that somebody declared otherwise, and a delivery limit."""
    parked, intake = own.names.parked("default"), own.names.intake
    with own.channel() as channel:
        for queue in (parked, intake):
            channel.queue_delete(queue)
        channel.queue_declare(parked, durable=True)
        (made,) = [queue for queue in build(own.names, ["default"]).queues if queue.name == intake]
        channel.queue_declare(intake, durable=True, arguments=made.arguments | {"x-delivery-limit": 5})
        channel.exchange_delete(own.names.peers)
        channel.exchange_declare(own.names.peers, "topic", durable=True)
    lines = await examined(own, code=1)
    for name in (parked, intake, own.names.peers):
        assert name in lines["arguments"]["message"]
    assert lines["arguments"]["status"] == "failed"
    assert lines["delivery-limits"]["status"] == "failed"
    assert intake in lines["delivery-limits"]["message"]
    assert lines["topology"]["status"] == "ok"


async def test_a_broken_ladder_is_found(own: Installation) -> None:
    """The way into it is gone; or the way out."""
    with own.channel() as channel:
        channel.queue_unbind(own.names.delay(0), own.names.delays, "*.*.00.#")
    lines = await examined(own, code=1)
    assert lines["routes"]["status"] == "failed"
    assert "does not lead into" in lines["routes"]["message"]
    await asyncio.to_thread(own.apply)
    assert (await examined(own, code=1))["routes"]["status"] == "ok"
    with own.channel() as channel:
        channel.exchange_unbind(own.names.due, own.names.after(0), "*.*.#.00")
    lines = await examined(own, code=1)
    assert "nothing came out" in lines["routes"]["message"]


async def test_messages_that_missed_their_way_are_found(own: Installation) -> None:
    """In unrouted, stray.v1 and unrecorded.v1."""
    for queue in (own.names.unrouted, own.names.stray, own.names.unrecorded):
        own.publish(queue, b"lost", exchange="")
    lines = await examined(own, code=1)
    assert f"1 messages in {own.names.unrouted}, 1 messages in {own.names.stray}" in lines["strays"]["message"]
    assert lines["unrecorded"]["status"] == "failed"
    assert own.depth(own.names.unrouted) == 1


async def test_many_refusals_are_a_warning(own: Installation) -> None:
    """Where they come so fast that the oldest go before their time."""
    now = clock.now_ms()
    await own.create_key()
    jobs = [{"_id": f"shop:{n}", "state": "rejected", "accepted_at": date_of(now)} for n in range(400)]
    own.db.jobs.insert_many(jobs)
    lines = await examined(own, code=1)
    assert lines["rejected"]["status"] == "warning"
    assert "400 in the last hour" in lines["rejected"]["message"]
    assert lines["parked"]["status"] == "ok"


def date_of(ms: int) -> Any:
    """Milliseconds as MongoDB's date."""
    from bson.datetime_ms import DatetimeMS

    return DatetimeMS(ms)


async def test_a_key_that_expires_soon_is_named(own: Installation) -> None:
    """Of two, the one; and one that has expired is none."""
    await own.create_key("crm", expires_at=clock.now_ms() - 1000)
    assert "no active API key" in (await examined(own, code=1))["keys"]["message"]
    await own.create_key("crm")
    assert (await examined(own, code=1))["keys"]["status"] == "ok"
    await own.create_key("shop", expires_at=clock.now_ms() + 86_400_000)
    lines = await examined(own, code=1)
    assert lines["keys"]["status"] == "warning"
    assert "1 of 2 keys" in lines["keys"]["message"]
    assert "of app shop" in lines["keys"]["message"]


async def test_with_mongodb_away_the_broker_is_checked_all_the_same(healthy: Installation) -> None:
    """One failure, the rest of its checks not made, all of the broker's made."""
    lines = await examined(healthy, code=1, env=MONGO_AWAY)
    assert bad(lines) == {
        "database": "failed",
        **dict.fromkeys(("database-version", "replica-set", "majority", "indexes", "clock", "keys"), "warning"),
    }
    assert "127.0.0.1:9" in lines["database"]["message"]
    assert "not checked" in lines["indexes"]["message"]


async def test_with_rabbitmq_away_the_database_is_checked_all_the_same(healthy: Installation) -> None:
    """The other way round, and with both."""
    lines = await examined(healthy, code=1, env=AMQP_AWAY)
    checks = list(CHECKS)
    of_the_broker = checks[checks.index("broker") : checks.index("database")]
    of_the_broker.remove("consumer-timeout")
    assert list(bad(lines)) == of_the_broker
    assert [check for check, status in bad(lines).items() if status == "failed"] == ["broker"]
    lines = await examined(healthy, code=1, env=AMQP_AWAY | MONGO_AWAY)
    assert [check for check, status in bad(lines).items() if status == "failed"] == ["broker", "database"]


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (
            lambda url: url._replace(netloc=f"guest:hush@{url.netloc.rpartition('@')[2]}"),
            "refused the user or password",
        ),
        (lambda url: url._replace(path="/nowhere"), "virtual host"),
    ],
    ids=["password", "vhost"],
)
async def test_a_wrong_password_or_virtual_host_is_told_from_a_broker_that_is_away(
    healthy: Installation, change: Any, said: str
) -> None:
    """The sentence says which of them it is, and never the password."""
    url = urllib.parse.urlunsplit(change(urllib.parse.urlsplit(healthy.amqp_url)))
    lines = await examined(healthy, code=1, env={"DISPATCHER_AMQP__URL": url})
    assert lines["broker"]["status"] == "failed"
    assert said in lines["broker"]["message"]


async def test_long_handlers_need_a_longer_consumer_timeout(healthy: Installation, tmp_path: Path) -> None:
    """A handler of two hours, and a configured timeout of one; with the setting raised both are well."""
    (tmp_path / "long_ones.py").write_text(
        "from consumers import Registry\njobs = Registry()\n"
        "@jobs.handler('report.build', timeout=7200)\ndef build(payload): ...\n"
    )
    with inside(tmp_path):
        lines = await examined(healthy, "--worker", "long_ones:jobs", code=0)
        assert bad(lines) == {"consumer-timeout": "warning"}
        assert "the handler of report.build may run for 7200 s" in lines["consumer-timeout"]["message"]
        raised = {"DISPATCHER_AMQP__CONSUMER_TIMEOUT": "8000"}
        assert bad(await examined(healthy, "--worker", "long_ones:jobs", code=0, env=raised)) == {}
    lines = await examined(healthy, code=0, env={"DISPATCHER_WORKER__TIMEOUT": "3600"})
    assert "worker.timeout" in lines["consumer-timeout"]["message"]


async def test_a_module_that_hides_ours_and_a_registry_that_is_not_there(healthy: Installation, tmp_path: Path) -> None:
    """A warning and a failure."""
    (tmp_path / "config.py").write_text("DEBUG = True\n")
    with inside(tmp_path):
        lines = await examined(healthy, "--worker", "nowhere_at_all:jobs", code=1)
    assert bad(lines) == {"names": "warning", "handlers": "failed"}
    assert str(tmp_path / "config.py") in lines["names"]["message"]
    assert "nowhere_at_all" in lines["handlers"]["message"]


@contextmanager
def inside(folder: Path) -> Iterator[None]:
    """With another current folder."""
    before = Path.cwd()
    os.chdir(folder)
    try:
        yield
    finally:
        os.chdir(before)


async def test_a_configuration_that_cannot_be_used_is_a_line_too(healthy: Installation) -> None:
    """With what can be checked without it."""
    lines = await examined(healthy, code=1, env={"DISPATCHER_AMQP__URLL": "x"})
    assert list(lines) == ["configuration", "names"]
    assert "amqp.url" in lines["configuration"]["message"]


async def test_the_port_is_free_ours_or_taken(healthy: Installation) -> None:
    """A service of ours that is ready, one that is not, somebody else, nobody."""
    async with ServiceProcess(healthy, "run", "scheduler") as service:
        await service.ready()
        port = {"DISPATCHER_HTTP__PORT": service.url.rpartition(":")[2]}
        assert "is ready" in (await examined(healthy, code=0, env=port))["port"]["message"]
    assert "is free" in (await examined(healthy, code=0, env=port))["port"]["message"]
    async with ServiceProcess(healthy, "run", "scheduler", env=MONGO_AWAY) as service:
        port = {"DISPATCHER_HTTP__PORT": service.url.rpartition(":")[2]}
        lines = await examined(healthy, code=0, env=port)
        assert lines["port"]["status"] == "warning"
        assert "scheduler.database" in lines["port"]["message"]
    with another_server() as number:
        lines = await examined(healthy, code=1, env={"DISPATCHER_HTTP__PORT": str(number)})
        assert bad(lines) == {"port": "failed"}


@contextmanager
def another_server() -> Iterator[int]:
    """Something that is no HTTP server; its port."""
    listening = socket.create_server(("127.0.0.1", 0))

    def answer() -> None:
        while True:
            try:
                peer, _ = listening.accept()
            except OSError:
                return
            with peer:
                peer.sendall(b"220 mail ready\r\n")

    thread = threading.Thread(target=answer, daemon=True)
    thread.start()
    yield listening.getsockname()[1]
    listening.shutdown(socket.SHUT_RDWR)
    listening.close()
    thread.join(5)


async def test_with_the_management_api_bindings_and_policies_are_seen(own: Installation) -> None:
    """A binding that is gone, and a policy that would drop messages."""
    url = os.environ.get("DEV_MANAGEMENT_URL")
    if not url:
        pytest.skip("the servers of this run have no management API")
    env = {"DISPATCHER_AMQP__MANAGEMENT_URL": url}
    assert "every binding exists" in (await examined(own, code=1, env=env))["routes"]["message"]
    with own.channel() as channel:
        channel.queue_unbind(own.names.delay(3), own.names.after(7), "*.*.#.07.03.#")
    lines = await examined(own, code=1, env=env)
    assert f"{own.names.after(7)} to {own.names.delay(3)}" in lines["routes"]["message"]
    policy = f"{url}/api/policies/%2F/{own.settings.amqp.prefix}limit"
    definition = {"pattern": f"^{own.names.intake}$", "definition": {"delivery-limit": 5}, "apply-to": "queues"}
    await asyncio.to_thread(ask, "PUT", policy, definition)
    try:
        lines = await policy_seen(own, env)
        assert own.names.intake in lines["delivery-limits"]["message"]
        assert lines["arguments"]["status"] == "warning"
    finally:
        await asyncio.to_thread(ask, "DELETE", policy)
    wrong = {"DISPATCHER_AMQP__MANAGEMENT_URL": "http://127.0.0.1:9"}
    lines = await examined(own, code=1, env=wrong)
    assert "amqp.management_url" in lines["routes"]["message"]
    assert lines["strays"]["status"] == "ok"


async def policy_seen(own: Installation, env: Mapping[str, str]) -> Lines:
    """What doctor says once the broker applies the policy, which it does some time after it took it."""
    from tests.support import eventually

    async def look() -> Lines | None:
        lines = await examined(own, code=1, env=env)
        return lines if lines["delivery-limits"]["status"] == "failed" else None

    found: Lines = await eventually(look, "the policy is applied", every=0.2)
    return found


def ask(method: str, url: str, body: Any = None) -> None:
    """A request to the management API."""
    data = None if body is None else json.dumps(body).encode()
    request = urllib.request.Request(url, data, {"Content-Type": "application/json"}, method=method)
    request.add_header("Authorization", "Basic Z3Vlc3Q6Z3Vlc3Q=")
    with urllib.request.urlopen(request, timeout=10):
        pass
