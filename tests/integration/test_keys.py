"""API keys from the command line to intake: create, list, scopes, expiry, revoke."""

from __future__ import annotations

import asyncio
import json
import re
import time
from collections.abc import AsyncIterator
from datetime import UTC, datetime
from typing import Any

import pika
import pytest
import pytest_asyncio
from click.testing import CliRunner

from dispatcher.cli.main import main
from dispatcher.core import keys
from dispatcher.services.intake import Intake
from tests.conftest import run_services
from tests.processes import ServiceProcess, command, invoked, succeed
from tests.support import Installation, eventually
from tests.sweep import documents_with, take

pytestmark = pytest.mark.integration

KEY = re.compile(r"jd_[a-z0-9]+_[0-9A-Za-z]+_[0-9A-Za-z]{36}")


@pytest_asyncio.fixture
async def intake(installed: Installation) -> AsyncIterator[Installation]:
    """Intake running in the test."""
    async with run_services(Intake(installed.settings)):
        yield installed


async def create(installation: Installation, *options: str) -> dict[str, Any]:
    """What ``keys create --json`` prints."""
    made: dict[str, Any] = (await invoked(installation, "keys", "create", *options, "--json")).json
    return made


async def listed(installation: Installation, app: str) -> dict[str, dict[str, Any]]:
    """What ``keys list --json`` prints of an app, by id."""
    shown = (await invoked(installation, "keys", "list", "--app", app, "--json")).json
    assert isinstance(shown, list)
    return {key["id"]: key for key in shown}


async def verdicts(installation: Installation, key: str, jobs: list[tuple[str, dict[str, Any]]]) -> list[str]:
    """Publish jobs; returns "accepted" or the code for each, in order."""
    found: dict[str, str] = {}
    names = installation.names
    lanes = [names.work_queue(lane, p) for lane in ("default", "bulk") for p in ("critical", "high", "normal", "low")]
    with installation.channel() as channel:
        queue = channel.queue_declare("", exclusive=True).method.queue
        channel.confirm_delivery()
        for number, (job_type, body) in enumerate(jobs):
            sent = pika.BasicProperties(
                delivery_mode=2, headers={"x-api-key": key}, reply_to=queue, correlation_id=str(number)
            )
            channel.basic_publish(names.jobs, job_type, json.dumps(body).encode(), sent)

        def answered() -> bool:
            while True:
                method, properties, body = channel.basic_get(queue, auto_ack=True)
                if method is None:
                    return len(found) == len(jobs)
                answer = json.loads(body)
                found[properties.correlation_id] = answer.get("error", {"code": "accepted"})["code"]

        await eventually(answered, "every job is answered")
    for name in (*lanes, names.rejected):
        take(installation, name)
    return [found[str(number)] for number in range(len(jobs))]


async def test_create_prints_the_key_once_and_stores_only_its_hash(installed: Installation) -> None:
    """The JSON document has app, id and key; the secret is nowhere in the database, and not in a list."""
    made = (await succeed(installed, "keys", "create", "--app", "once", "--json")).json
    assert made.keys() == {"app", "id", "key"}
    assert made["app"] == "once"
    assert KEY.fullmatch(made["key"])
    assert keys.parse(made["key"]) == made["id"]
    assert documents_with(installed, made["key"][-36:]) == []
    for options in (["--json"], []):
        shown = await succeed(installed, "keys", "list", *options)
        assert made["id"] in shown.out
        assert made["key"][-36:-6] not in shown.out + shown.err


async def test_create_without_json_prints_the_key_alone(installed: Installation) -> None:
    """Data on stdout, the message on stderr, so that a script can take it."""
    made = await succeed(installed, "keys", "create", "--app", "plain")
    assert KEY.fullmatch(made.out.strip())
    assert "not shown again" in made.err
    assert made.out.strip() not in made.err


async def test_list_shows_scopes_and_states(installed: Installation) -> None:
    """One array; active, expired and revoked keys with what they may do."""
    scopes = "--expires 90d --types mail.*,sms.# --types x --lanes bulk --max-priority low --max-bytes 500"
    scoped = await create(installed, "--app", "scoped", *scopes.split())
    brief = await create(installed, "--app", "scoped", "--expires", "1s")
    gone = await create(installed, "--app", "scoped")
    revoked = await succeed(installed, "keys", "revoke", gone["id"])
    assert gone["id"] in revoked.err
    expiry = installed.db.api_keys.find_one({"_id": brief["id"]})["expires_at"]
    await eventually(lambda: datetime.now(UTC) > expiry, "the brief one expires")
    shown = await listed(installed, "scoped")
    assert shown[brief["id"]]["state"] == "expired"
    assert shown[scoped["id"]]["state"] == "active"
    assert shown[scoped["id"]]["types"] == ["mail.*", "sms.#", "x"]
    assert shown[scoped["id"]]["lanes"] == ["bulk"]
    assert shown[scoped["id"]]["max_priority"] == "low"
    assert shown[scoped["id"]]["max_bytes"] == 500
    assert shown[scoped["id"]]["expires_at"].endswith("Z")
    assert shown[gone["id"]]["state"] == "revoked"
    options = ["--app", "scoped", "--state", "revoked", "--state", "active", "--json"]
    assert {key["id"] for key in (await succeed(installed, "keys", "list", *options)).json} == {
        scoped["id"],
        gone["id"],
    }


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["create"], "--app"),
        (["create", "--app", "Shop"], "[a-z0-9_-]"),
        (["create", "--app", "a:b"], "[a-z0-9_-]"),
        (["create", "--app", ""], "[a-z0-9_-]"),
        (["create", "--app", "a" * 65], "64"),
        (["create", "--app", "a", "--expires", "soon"], "90d"),
        (["create", "--app", "a", "--expires", "0d"], "90d"),
        (["create", "--app", "a", "--expires", "999999999d"], "100 years"),
        (["create", "--app", "a", "--types", "Mail"], "type pattern"),
        (["create", "--app", "a", "--types", "a..b"], "type pattern"),
        (["create", "--app", "a", "--max-priority", "urgent"], "critical"),
        (["create", "--app", "a", "--max-bytes", "-1"], "--max-bytes"),
        (["revoke"], "KEYID"),
        (["rewoke"], "rewoke"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_wrong_use_says_what_is_right(arguments: list[str], says: str) -> None:
    """Exit code 2, a sentence on stderr, nothing on stdout."""
    finished = CliRunner().invoke(main, ["keys", *arguments])
    assert finished.exit_code == 2
    assert says in finished.stderr
    assert finished.stdout == ""


async def test_what_cannot_be_done_says_what_can(installed: Installation) -> None:
    """Exit code 2 for an unknown lane, which is named with those there are; 1 for a key that is not there."""
    lane, nobody = await asyncio.gather(
        command(installed, "keys", "create", "--app", "a", "--lanes", "nowhere"),
        command(installed, "keys", "revoke", "nobody"),
    )
    assert (lane.code, nobody.code) == (2, 1)
    assert "default, bulk" in lane.err
    assert "dispatcher keys list" in nobody.err
    assert "Traceback" not in lane.err + nobody.err
    assert lane.out + nobody.out == ""


async def test_revoke_never_echoes_a_whole_key(installed: Installation) -> None:
    """Who gives the key instead of its id gets an error, and the log of the shell gets no second copy."""
    made = await create(installed, "--app", "careless")
    finished = await command(installed, "keys", "revoke", made["key"])
    assert finished.code == 1
    assert made["key"][-36:] not in finished.err
    assert (await listed(installed, "careless"))[made["id"]]["state"] == "active"


async def test_a_new_key_works_at_once(intake: Installation) -> None:
    """No wait for a refresh: an unseen key is looked up."""
    made = await create(intake, "--app", "fresh")
    assert await verdicts(intake, made["key"], [("f.one", {})]) == ["accepted"]


async def test_scopes_are_enforced(intake: Installation) -> None:
    """Types, lanes, the highest priority and the size; without scopes everything is allowed."""
    made = await create(
        intake, "--app", "narrow", "--types", "mail.*", "--types", "log.#,one", "--lanes", "bulk",
        "--max-priority", "normal", "--max-bytes", "200",
    )  # fmt: skip
    bulk = {"lane": "bulk"}
    cases = {
        "mail.send": (bulk, "accepted"), "mail": (bulk, "forbidden"), "mail.send.now": (bulk, "forbidden"),
        "log": (bulk, "accepted"), "log.a.b": (bulk, "accepted"), "logs": (bulk, "forbidden"),
        "one": (bulk, "accepted"), "one.two": (bulk, "forbidden"),
    }  # fmt: skip
    jobs: list[tuple[str, dict[str, Any]]] = [(job_type, body) for job_type, (body, _) in cases.items()]
    assert await verdicts(intake, made["key"], jobs) == [verdict for _, verdict in cases.values()]
    more: list[tuple[dict[str, Any], str]] = [
        ({}, "forbidden"),
        ({"lane": "default"}, "forbidden"),
        (bulk | {"priority": "normal"}, "accepted"),
        (bulk | {"priority": "background"}, "accepted"),
        (bulk | {"priority": "high"}, "forbidden"),
        (bulk | {"priority": "critical"}, "forbidden"),
        (bulk | {"payload": {"a": "x" * 200}}, "too_large"),
    ]
    assert await verdicts(intake, made["key"], [("one", body) for body, _ in more]) == [code for _, code in more]
    free = await create(intake, "--app", "free")
    jobs = [("any.thing", {"lane": lane, "priority": "critical"}) for lane in ("default", "bulk")]
    assert await verdicts(intake, free["key"], jobs) == ["accepted"] * 2


async def test_a_key_expires_by_itself(intake: Installation) -> None:
    """It works until its time, and is expired_key from then on, without any command."""
    made = await create(intake, "--app", "brief", "--expires", "3s")
    assert await verdicts(intake, made["key"], [("x.one", {})]) == ["accepted"]

    async def expired() -> bool:
        return await verdicts(intake, made["key"], [("x.one", {})]) == ["expired_key"]

    await eventually(expired, "it expires", timeout=6)


async def test_revoking_one_key_leaves_the_others(intake: Installation) -> None:
    """The app's other key goes on; revoking again changes nothing."""
    one, other = [await create(intake, "--app", "two") for _ in range(2)]
    assert await verdicts(intake, one["key"], [("x.one", {})]) == ["accepted"]
    for _ in range(2):
        await invoked(intake, "keys", "revoke", one["id"])

    async def refused() -> bool:
        return await verdicts(intake, one["key"], [("x.one", {})]) == ["revoked_key"]

    await eventually(refused, "it is refused")
    assert await verdicts(intake, other["key"], [("x.one", {})]) == ["accepted"]


async def test_a_broken_document_stops_no_other_key(intake: Installation) -> None:
    """Something else in ``api_keys`` is no key and nothing more: others are still read, listed and revoked."""
    broken = {"_id": "broken", "app": "shop", "types": ["Not A Pattern"], "updated_at": datetime.now(UTC)}
    intake.db.api_keys.insert_one(broken)
    try:
        made = await create(intake, "--app", "beside")
        assert await verdicts(intake, made["key"], [("x.one", {})]) == ["accepted"]
        assert made["id"] in await listed(intake, "beside")
        await invoked(intake, "keys", "revoke", made["id"])

        async def refused() -> bool:
            return await verdicts(intake, made["key"], [("x.one", {})]) == ["revoked_key"]

        await eventually(refused, "it is refused")
    finally:
        intake.db.api_keys.delete_one({"_id": "broken"})


async def test_every_running_intake_refuses_a_revoked_key_within_2_s(installed: Installation) -> None:
    """Two intakes share the queue; a job every 50 ms finds the last acceptance after the command ended."""
    made = await create(installed, "--app", "leaked")
    answers: list[tuple[float, str]] = []
    async with ServiceProcess(installed, "run", "intake") as one, ServiceProcess(installed, "run", "intake") as two:
        await one.ready()
        await two.ready()
        stop = asyncio.Event()
        asking = asyncio.create_task(asyncio.to_thread(_ask, installed, made["key"], answers, stop))
        await eventually(lambda: len(answers) >= 20, "both accept")
        assert {status for _, status in answers} == {"accepted"}
        await succeed(installed, "keys", "revoke", made["id"])
        revoked = time.monotonic()
        await eventually(lambda: len(_after(answers, revoked + 2)) >= 20, "jobs are published for 3 s more")
        stop.set()
        await asking
        for service in (one, two):
            _, metrics = await service.get("/metrics")
            assert 'dispatcher_jobs_refused_total{code="revoked_key"}' in metrics, "both had their share"
    last = max(at for at, status in answers if status == "accepted")
    assert last - revoked < 2
    assert {status for _, status in _after(answers, revoked + 2)} == {"revoked_key"}


def _after(answers: list[tuple[float, str]], moment: float) -> list[tuple[float, str]]:
    return [(at, status) for at, status in answers if at > moment]


def _ask(installation: Installation, key: str, answers: list[tuple[float, str]], stop: asyncio.Event) -> None:
    """Publish every 50 ms; notes when each job was *published*, and what intake answered."""
    published: dict[str, float] = {}

    def answered(_channel: Any, _method: Any, properties: Any, body: bytes) -> None:
        answer = json.loads(body)
        status = answer["error"]["code"] if "error" in answer else answer["status"]
        answers.append((published[properties.correlation_id], status))

    with installation.channel() as channel:
        channel.basic_consume("amq.rabbitmq.reply-to", answered, auto_ack=True)
        while not stop.is_set():
            number = str(len(published))
            published[number] = time.monotonic()
            sent = pika.BasicProperties(
                delivery_mode=2, headers={"x-api-key": key}, reply_to="amq.rabbitmq.reply-to", correlation_id=number
            )
            channel.basic_publish(installation.names.jobs, "l.one", b"{}", sent)
            channel.connection.process_data_events(0.05)
