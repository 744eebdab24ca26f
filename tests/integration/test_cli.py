"""The command line on real servers: what it prints, what it refuses, how it ends."""

from __future__ import annotations

import asyncio
import json
from collections import Counter
from collections.abc import AsyncIterator
from typing import Any

import click
import pytest
import pytest_asyncio
from click.testing import CliRunner

from consumers import Registry, Retry
from consumers.worker import Worker
from dispatcher import composition
from dispatcher.cli.main import main
from dispatcher.services.intake import Intake
from dispatcher.services.recorder import Recorder
from tests.conftest import run_services
from tests.processes import command, invoke, invoked, succeed
from tests.support import Installation, eventually

pytestmark = pytest.mark.integration

jobs = Registry()
world = {"broken": True}


@jobs.handler("l.echo")
async def echo(payload: dict[str, Any]) -> dict[str, Any]:
    """Return the payload."""
    return payload


@jobs.handler("l.flaky", retry=Retry(max_attempts=2, base=0.125))
async def flaky(payload: dict[str, Any]) -> str:
    """Fail while the world is broken."""
    if world["broken"]:
        raise ConnectionError("broken")
    return "mended"


@pytest_asyncio.fixture
async def shop(installed: Installation) -> AsyncIterator[tuple[Installation, dict[str, str]]]:
    """Intake, worker and recorder running, and the environment of a client with a key."""
    key = await installed.create_key()
    settings = installed.settings
    async with run_services(Intake(settings), Recorder(settings), Worker(settings, jobs, "test_cli:jobs")):
        yield installed, {"DISPATCHER_API_KEY": key}


Shop = tuple[Installation, dict[str, str]]


def _paths(group: click.Command, path: tuple[str, ...] = ()) -> list[tuple[str, ...]]:
    if not isinstance(group, click.Group):
        return [path]
    return [path, *(found for name, sub in group.commands.items() for found in _paths(sub, (*path, name)))]


@pytest.mark.parametrize("path", _paths(main), ids=" ".join)
def test_every_command_explains_itself(path: tuple[str, ...]) -> None:
    """--help works everywhere, and every command and option says what it is for."""
    finished = CliRunner().invoke(main, [*path, "--help"])
    assert finished.exit_code == 0
    assert "Usage:" in finished.stdout
    found: Any = main
    for name in path:
        found = found.commands[name]
    assert found.help
    options = [p for p in found.params if isinstance(p, click.Option)]
    assert [option.name for option in options if not option.help] == []


async def test_topology_is_applied_twice_and_shown(installed: Installation) -> None:
    """Applying again changes nothing; what is shown is what exists, under the prefix."""
    first = await succeed(installed, "topology", "apply")
    second = await succeed(installed, "topology", "apply", "--json")
    shown = (await invoked(installed, "topology", "show", "--json")).json
    assert f"{second.json['queues']} queues" in first.err
    assert len(shown["queues"]) == second.json["queues"]
    prefix = installed.settings.amqp.prefix
    plain = {queue["name"].removeprefix(prefix) for queue in shown["queues"]}
    lanes = {f"work.v1.{lane}.{p}" for lane in ("default", "bulk") for p in ("critical", "normal", "background")}
    contract = {"intake.v1", "rejected", "unrouted", "history.v1", "parked.v1.default", "parked.v1.bulk", *lanes}
    assert plain >= contract
    for queue in shown["queues"]:
        assert queue["name"].startswith(prefix)
        installed.depth(queue["name"])
        assert queue["arguments"]["x-queue-type"] == "quorum"


async def test_publish_says_accepted_refused_and_unanswered(shop: Shop) -> None:
    """Exit code 0 with the id on stdout, or 1 with the code on stderr, in plain text and in JSON."""
    installation, env = shop
    plain, shown, refused, refused_json = await asyncio.gather(
        succeed(installation, "publish", "l.echo", '{"n": 1}', "--id", "p-1", "--tag", "x", env=env),
        succeed(installation, "publish", "l.echo", "-", "--json", stdin=b'{"n": 2}', env=env),
        command(installation, "publish", "l.echo", "--lane", "nowhere", env=env),
        command(installation, "publish", "l.echo", "--timeout", "0", "--json", env=env),
    )
    assert plain.out.strip() == "p-1"
    assert shown.json["status"] == "accepted"
    assert (await installation.finished(shown.json["id"]))["payload"] == {"n": 2}
    assert (refused.code, refused.out) == (1, "")
    assert "unknown_lane" in refused.err
    assert refused_json.code == 1
    assert refused_json.json["status"] == "rejected"
    assert refused_json.json["error"]["code"] == "invalid_field"
    assert (await installation.finished("p-1"))["tags"] == ["x"]
    (shown_refusal, _) = (await invoked(installation, "rejected", "list", "--json")).json
    assert shown_refusal["type"] == "l.echo"
    assert shown_refusal["app"]
    assert shown_refusal["at"].endswith("Z")


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["publish", "a.b", "{}"], "DISPATCHER_API_KEY"),
        (["publish", "a.b", "{"], "not JSON"),
        (["publish", "a.b", '{"a": "\\ud800"}'], "surrogate"),
        (["publish", "a.b", "{}", "--retry", "{"], "not JSON"),
        (["publish", "a.b", "{}", "--priority", "urgent"], "critical"),
        (["publish", "x" * 256, "{}"], "255"),
        (["publish"], "TYPE"),
        (["jobs", "list", "--state", "lost"], "succeeded"),
        (["jobs", "list", "--limit", "0"], "--limit"),
        (["jobs", "list", "--since", "1h", "--until", "2h"], "after --since"),
        (["jobs", "list", "--since", "yesterday"], "2h, 30m, 7d"),
        (["publish", "a.b", "--run-at", "tomorrow"], "with its offset"),
        (["publish", "a.b", "--delay", "nan"], "no length of time"),
        (["jobs", "show"], "ID"),
        (["run", "cook"], "intake"),
        (["worker"], "MODULE:REGISTRY"),
        (["nonsense"], "nonsense"),
    ],
    ids=lambda value: " ".join(value)[:40] if isinstance(value, list) else "",
)
def test_wrong_use_says_what_is_right(arguments: list[str], says: str) -> None:
    """Exit code 2, a sentence on stderr, nothing on stdout."""
    key = {"DISPATCHER_API_KEY": None if says == "DISPATCHER_API_KEY" else "jd_x"}
    finished = CliRunner().invoke(main, arguments, env=key)
    assert finished.exit_code == 2, finished.exception
    assert says in finished.stderr
    assert finished.stdout == ""


async def test_jobs_are_listed_filtered_and_shown(shop: Shop) -> None:
    """State, app, type, tag and limit; one array, or one document with its attempts."""
    installation, env = shop
    key = env["DISPATCHER_API_KEY"]
    for number in range(3):
        installation.publish("l.echo", {"id": f"j-{number}", "tags": ["listed", f"t{number}"]}, key)
        await installation.finished(f"j-{number}")
    installation.publish("l.nobody", {"id": "j-refused", "lane": "nowhere"}, key)
    table, unknown = await asyncio.gather(
        succeed(installation, "jobs", "list", "--tag", "listed"), command(installation, "jobs", "show", "j-none")
    )
    listing = ("jobs", "list", "--json", "--tag")
    listed = await invoked(installation, *listing, "listed", "--type", "l.echo", "--app", "shop")
    tagged = await invoked(installation, *listing, "t1", "--state", "succeeded", "--state", "failed")
    limited = await invoked(installation, *listing, "listed", "--limit", "2")
    nothing = await invoked(installation, "jobs", "list", "--app", "nobody", "--json")
    shown = await invoked(installation, "jobs", "show", "j-1", "--json")
    detail = await invoked(installation, "jobs", "show", "shop:j-1")
    assert [job["id"] for job in listed.json] == ["j-2", "j-1", "j-0"]
    assert [job["id"] for job in tagged.json] == ["j-1"]
    assert [job["id"] for job in limited.json] == ["j-2", "j-1"]
    assert nothing.json == []
    assert shown.json["_id"] == "shop:j-1"
    assert shown.json["accepted_at"].endswith("Z")
    assert shown.json["attempts"][0]["outcome"] == "succeeded"
    assert all(f"j-{number}" in table.out for number in range(3))
    assert "succeeded" in detail.out
    assert unknown.code == 1
    assert "dispatcher jobs list" in unknown.err


async def test_retry_and_replay_start_second_runs(shop: Shop) -> None:
    """Three dead jobs: one is replayed and leaves the parked queue, one is retried from history, one stays."""
    installation, env = shop
    parked = installation.names.parked("default")
    world["broken"] = True
    for name in ("replayed", "retried", "left"):
        installation.publish("l.flaky", {"id": name}, env["DISPATCHER_API_KEY"])
    for name in ("replayed", "retried", "left"):
        assert (await installation.finished(name))["state"] == "failed"
    await eventually(lambda: installation.depth(parked) == 3, "they are parked")
    world["broken"] = False
    dead = (await invoked(installation, "dead", "list", "--json")).json
    assert {job["id"] for job in dead} == {"replayed", "retried", "left"}
    detail = await succeed(installation, "jobs", "show", "left")
    assert "Traceback of run 1, attempt 2:\n" in detail.out
    assert dead[0]["error"]["message"] in detail.out.partition("Traceback of")[2]
    replayed = await succeed(installation, "dead", "replay", "replayed", "--json")
    retried = await succeed(installation, "jobs", "retry", "retried", "--json")
    assert replayed.json == {"app": "shop", "id": "replayed", "run": 2}
    assert retried.json == {"app": "shop", "id": "retried", "run": 2}
    for name in ("replayed", "retried"):
        query = {"_id": f"shop:{name}", "run": 2, "state": "succeeded"}
        document = await eventually(lambda query=query: installation.db.jobs.find_one(query), "its second run succeeds")
        assert [(a["run"], a["n"], a["outcome"]) for a in document["attempts"]] == [
            (1, 1, "failed"), (1, 2, "failed"), (2, 1, "succeeded"),
        ]  # fmt: skip
    again, alive, running = await asyncio.gather(
        command(installation, "dead", "replay", "replayed"),
        succeed(installation, "dead", "list", "--json"),
        command(installation, "jobs", "retry", "nobody"),
    )
    assert again.code == 1
    assert "not dead" in again.err
    assert [job["id"] for job in alive.json] == ["left"]
    assert running.code == 1
    left = sorted(json.loads(body)["id"] for _, body in installation.drain(parked))
    assert left == ["left", "retried"], "the replayed message has gone, and no other"


async def test_stats_equal_the_documents(shop: Shop) -> None:
    """Every count, by type, priority and app, is what the documents of ``jobs`` add up to."""
    installation, env = shop
    key = env["DISPATCHER_API_KEY"]
    other = await installation.create_key(app="other")
    for number, priority in enumerate(["critical", "normal", "low"] * 4):
        installation.publish("l.echo", {"id": f"stat-{number}", "priority": priority}, key if number % 2 else other)
    installation.publish("Not.A.Type", {}, other)
    for number in range(12):
        await installation.finished(f"stat-{number}", "shop" if number % 2 else "other")
    await eventually(lambda: installation.db.jobs.find_one({"app": "other", "state": "rejected"}), "it is refused")
    printed = (await succeed(installation, "stats", "--json")).json
    assert printed.keys() == {"total", "by_type", "by_priority", "by_app", "starts", "breached"}
    documents = list(installation.db.jobs.find())
    assert printed["total"] == _counted(documents)
    assert printed["starts"]["total"] == sum(len(d["attempts"]) for d in documents)
    for section, field in {"by_type": "type", "by_priority": "priority", "by_app": "app"}.items():
        names = {document[field] for document in documents if document[field] is not None}
        assert printed[section].keys() == names
        for name, group in printed[section].items():
            assert group.pop("wait_ms").keys() == group.pop("run_ms").keys() == {"p50", "p95", "p99"}
            assert group == _counted([d for d in documents if d[field] == name]), (section, name)
            started = sum(len(d["attempts"]) for d in documents if d[field] == name)
            assert printed["starts"][section][name] == started, (section, name)
    waits = sorted(d["wait_ms"] for d in documents if d["type"] == "l.echo" and "wait_ms" in d)
    again = (await invoked(installation, "stats", "--json")).json["by_type"]["l.echo"]["wait_ms"]
    assert again["p50"] == pytest.approx(waits[(len(waits) - 1) // 2], rel=0.02, abs=1)
    assert again["p99"] == pytest.approx(waits[-1], rel=0.02, abs=1)
    assert "l.echo" in (await invoked(installation, "stats")).out


def _counted(documents: list[dict[str, Any]]) -> dict[str, int]:
    retries = sum(len({(a["run"], a["n"]) for a in d["attempts"] if a["n"] > 1}) for d in documents)
    return {**Counter(document["state"] for document in documents), "retries": retries}


AWAY = {
    "DISPATCHER_AMQP__URL": "amqp://guest:hush@127.0.0.1:9/",
    "DISPATCHER_MONGO__URL": "mongodb://a:hush@127.0.0.1:9/",
}


WRONG: list[tuple[str, dict[str, str], str]] = [
    ("keys list", AWAY, "cannot reach MongoDB"),
    ("jobs retry x", AWAY, "RabbitMQ at amqp://guest:***@127.0.0.1:9/"),
    ("publish a.b", AWAY | {"DISPATCHER_API_KEY": "jd_x"}, "127.0.0.1:9"),
    ("topology apply", AWAY, "127.0.0.1:9"),
    ("keys list", {"DISPATCHER_MONGO__DATABSE": "x"}, 'did you mean "mongo.database"'),
    ("keys list", {"DISPATCHER_AMPQ__URL": "x"}, 'did you mean "amqp"'),
    ("keys list", {"DISPATCHER_WORKER__CONCURRENCY": "many"}, "worker.concurrency"),
    ("keys list", {"DISPATCHER_CONFIG": "/nowhere.yaml"}, "/nowhere.yaml"),
    ("keys list", {"DISPATCHER_LANES": "3"}, "setting lanes: write a list"),
    ("keys list", {"DISPATCHER_MONGO__URL": "mongodb://127.0.0.1:9/?replicaSett=rs0"}, "mean one of (replicaset"),
    ("topology apply", {"DISPATCHER_AMQP__URL": "not a url"}, "setting amqp.url: write amqp://"),
    ("topology apply", {"DISPATCHER_AMQP__URL": "amqp://guest:hu/s@h@127.0.0.1:9/"}, "amqp.url"),
    ("worker examples.handlers", {}, "MODULE:REGISTRY"),
    ("worker no.such.module:jobs", {}, "cannot import no.such.module"),
    ("worker examples.handlers:nobs", {}, "it has the registry jobs"),
    ("worker json:dumps", {}, "not a Registry"),
]


@pytest.mark.parametrize(("arguments", "env", "says"), WRONG, ids=lambda value: value if isinstance(value, str) else "")
def test_an_error_is_a_sentence(installed: Installation, arguments: str, env: dict[str, str], says: str) -> None:
    """Exit code 1, what is wrong and where to look, no traceback, no password."""
    finished = invoke(installed, *arguments.split(), env=env)
    assert finished.code == 1
    assert finished.err.startswith("Error: ")
    assert says in finished.err
    assert "Traceback" not in finished.err
    assert "hush" not in finished.err + finished.out
    assert "s@h" not in finished.err + finished.out


async def test_publish_without_a_topology_says_what_to_run(installed: Installation) -> None:
    """It fails within its time, and names the command."""
    env = {"DISPATCHER_AMQP__PREFIX": "no-such.", "DISPATCHER_API_KEY": "jd_x"}
    finished = await command(installed, "publish", "a.b", "--wait", "2", env=env)
    assert finished.code == 1
    assert "dispatcher topology apply" in finished.err


async def test_a_key_file_of_any_content_is_no_crash(shop: Shop, tmp_path: Any) -> None:
    """A good one works; bytes that are no text are a malformed key."""
    installation, env = shop
    good, bad = tmp_path / "good", tmp_path / "bad"
    good.write_text(env["DISPATCHER_API_KEY"] + "\n")
    bad.write_bytes(b"\xff\xfe")
    fine, finished = await asyncio.gather(
        succeed(installation, "publish", "l.echo", "--key-file", str(good), "--wait", "5"),
        command(installation, "publish", "l.echo", "--key-file", str(bad)),
    )
    assert fine.out.strip()
    assert finished.code == 1
    assert "malformed_key" in finished.err


def test_every_service_is_known() -> None:
    """``run`` offers exactly what the composition root can make."""
    finished = CliRunner().invoke(main, ["run", "--help"])
    assert all(name in finished.stdout for name in composition.SERVICES)
