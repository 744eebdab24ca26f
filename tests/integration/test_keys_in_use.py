"""Keys in use, as a running intake sees them: counts, last use, ends that come near, and floods of wrong keys."""

from __future__ import annotations

import asyncio
import json
import secrets
import time
from datetime import UTC, datetime
from typing import Any

import pika
import pytest

from dispatcher.core import keys
from dispatcher.core.usage import DAY_MS
from dispatcher.edges.amqp import Outgoing, Publisher
from dispatcher.edges.mongo import Database, DatabaseAway, KeyStore, UsageStore
from dispatcher.services.intake import Intake
from dispatcher.services.key_watch import KeyWatch
from tests.conftest import run_services
from tests.integration.test_keys import create, listed, verdicts
from tests.processes import ServiceProcess, command, invoked
from tests.support import Installation, eventually

pytestmark = pytest.mark.integration

JOB: list[tuple[str, dict[str, Any]]] = [("x.one", {})]


async def test_uses_are_counted_by_key_and_flushed_at_a_stop(installed: Installation) -> None:
    """Accepted, refused with the right secret, last use; also of a revoked key that somebody still has."""
    began = datetime.now(UTC)
    one, other, unused = [await create(installed, "--app", "used") for _ in range(3)]
    changed = {doc["_id"]: doc["updated_at"] for doc in installed.db.api_keys.find()}
    async with run_services(Intake(installed.settings)):
        await verdicts(installed, one["key"], JOB * 7 + [("x.one", {"nonsense": 1})])
        await verdicts(installed, other["key"], JOB)
        wrong = other["key"][:-36] + "0" * 30
        assert await verdicts(installed, wrong + keys.checksum(wrong), JOB) == ["unknown_key"]
    shown = await listed(installed, "used")
    assert (shown[one["id"]]["accepted"], shown[one["id"]]["refused"]) == (7, 1)
    assert (shown[other["id"]]["accepted"], shown[other["id"]]["refused"]) == (1, 0)
    assert shown[unused["id"]]["last_used_at"] is None
    used = datetime.fromisoformat(shown[one["id"]]["last_used_at"])
    assert began.replace(microsecond=0) <= used <= datetime.now(UTC)
    assert {doc["_id"]: doc["updated_at"] for doc in installed.db.api_keys.find()} == changed

    await invoked(installed, "keys", "revoke", other["id"])
    async with run_services(Intake(installed.settings)):
        assert await verdicts(installed, other["key"], JOB * 3) == ["revoked_key"] * 3
        await eventually(
            lambda: installed.db.key_usage.find_one({"_id": other["id"]})["refused"] == 3, "it is written while it runs"
        )
    text = await command(installed, "keys", "list", "--app", "used")
    assert "never" in text.out
    assert "last used" in text.out


async def test_while_mongodb_is_away_uses_are_kept(installed: Installation) -> None:
    """A write that fails is made again with what came since; a stop does not wait for it for ever."""
    database = Database(installed.settings.mongo.url.get_secret_value(), installed.settings.mongo.database)
    away = True

    class Flaky(UsageStore):
        async def add(self, usages: Any) -> None:
            if away:
                raise DatabaseAway("not there")
            await super().add(usages)

    watch = KeyWatch(Flaky(database), list, 14)
    record = keys.KeyRecord(id="kept", app="shop", hash="", created_at=0)
    watch.accepted(record)
    await watch.stop()
    watch.refused(record)
    away = False
    await watch.stop()
    stored = installed.db.key_usage.find_one({"_id": "kept"})
    assert (stored["accepted"], stored["refused"]) == (1, 1)
    database.close()


async def test_a_key_in_use_that_ends_soon_is_named_in_the_log_once(installed: Installation) -> None:
    """In the log of intake, with what to do; in the metrics; in the list. One with time left is not."""
    soon = await create(installed, "--app", "ending", "--expires", "3d")
    late = await create(installed, "--app", "ending", "--expires", "60d")
    never = await create(installed, "--app", "ending")
    shown = await listed(installed, "ending")
    assert {key_id: key["expiring"] for key_id, key in shown.items()} == {
        soon["id"]: True, late["id"]: False, never["id"]: False,
    }  # fmt: skip
    async with ServiceProcess(installed, "run", "intake") as intake:
        await intake.ready()
        for made in (soon, late, never):
            assert await verdicts(installed, made["key"], JOB) == ["accepted"]
        line = await intake.logged("an API key in use expires soon")
        assert (line["key"], line["app"], line["fix"]) == (soon["id"], "ending", f"dispatcher keys rotate {soon['id']}")
        assert await verdicts(installed, soon["key"], JOB) == ["accepted"]
        for made in (soon, never):
            count = 2 if made is soon else 1
            await eventually(
                lambda made=made, count=count: (
                    installed.db.key_usage.find_one({"_id": made["id"]})["accepted"] == count
                ),
                "the second use was looked at",
            )
        assert [line["key"] for line in intake.lines() if "expires soon" in line["event"]] == [soon["id"]]
        _, page = await intake.get("/metrics")
        assert "\ndispatcher_keys_expiring 1.0" in page
        (first,) = [line for line in page.splitlines() if line.startswith("dispatcher_key_first_expiry_seconds ")]
        assert 2.9 * DAY_MS < float(first.split()[1]) * 1000 < 3 * DAY_MS
        assert f'dispatcher_app_key_expiry_seconds{{app="ending"}} {first.split()[1]}\n' in page
        assert page.count("dispatcher_app_key_expiry_seconds{") == 1  # the other application's key never ends
    text = await command(installed, "keys", "list", "--app", "ending")
    assert "keys rotate" in text.err
    assert "(in 3 days)" in text.out


def wrong_keys(count: int) -> list[str]:
    """Keys of right form and checksum that nobody made."""
    return [keys.generate("live", secrets.choice)[0] for _ in range(count)]


async def test_a_flood_of_wrong_keys_holds_no_valid_job_up(installed: Installation) -> None:
    """10,000 of them, each with an id of its own: MongoDB is asked a few times a second, valid jobs run on beside."""
    key = await installed.create_key("steady")
    intake = Intake(installed.settings)
    asked: list[tuple[float, int]] = []

    class Counting(KeyStore):
        async def get(self, ids: Any) -> dict[str, keys.KeyRecord]:
            ids = list(ids)
            asked.append((time.monotonic(), len(ids)))
            return await super().get(ids)

    database = Database(installed.settings.mongo.url.get_secret_value(), installed.settings.mongo.database)
    intake._keys._store = Counting(database)
    flood = wrong_keys(10_000)
    before = installed.depth(installed.names.rejected)
    began = time.monotonic()
    waits: list[float] = []
    async with run_services(intake):
        flooding = asyncio.create_task(_flood(installed, flood))
        while not flooding.done():
            sent = time.monotonic()
            assert await verdicts_only(installed, key) == "accepted"
            waits.append(time.monotonic() - sent)
        await flooding
        assert await verdicts_only(installed, key) == "accepted"
        # a message that is still held at the stop comes back, and the next intake here would refuse it too
        await eventually(lambda: installed.depth(installed.names.rejected) >= before + len(flood), "all were refused")
        refused = installed.db.jobs.count_documents({"state": "rejected"})
        lasted = time.monotonic() - began
    database.close()
    assert refused == 0, "a message without a valid key leaves nothing in history"
    assert sum(count for _, count in asked) >= len(flood)
    assert len(asked) <= lasted / 0.05 + 1, "look-ups a second are bounded"
    assert len(intake._keys._unknown) <= 10_500
    print(
        f"{len(flood)} wrong keys in {lasted:.1f} s; {len(asked)} look-ups; valid: {len(waits)}, max {max(waits):.2f} s"
    )
    assert max(waits) < 20, "a valid job waits for what came before it, not for MongoDB"


async def _flood(installation: Installation, flood: list[str]) -> None:
    """One message a key, all in flight at once and all confirmed: what is not, the broker may lose at the close."""
    publisher = Publisher(installation.amqp_url, "flood")
    await publisher.start()
    messages = [Outgoing(installation.names.jobs, "x.flood", b"{}", {"x-api-key": key}) for key in flood]
    assert not await publisher.publish(messages), "each was routed"
    await publisher.close()


async def verdicts_only(installation: Installation, key: str) -> str:
    """Publish one job and wait for its answer."""

    def ask() -> str:
        found: list[str] = []

        def answered(_channel: Any, _method: Any, _properties: Any, body: bytes) -> None:
            answer = json.loads(body)
            found.append(answer["error"]["code"] if "error" in answer else answer["status"])

        with installation.channel() as channel:
            channel.basic_consume("amq.rabbitmq.reply-to", answered, auto_ack=True)
            properties = pika.BasicProperties(headers={"x-api-key": key}, reply_to="amq.rabbitmq.reply-to")
            channel.basic_publish(installation.names.jobs, "x.steady", b"{}", properties)
            deadline = time.monotonic() + 60
            while not found and time.monotonic() < deadline:
                channel.connection.process_data_events(0.05)
        return found[0] if found else "no answer"

    return await asyncio.to_thread(ask)


async def test_a_flood_is_told_once_and_counted_by_code(installed: Installation) -> None:
    """One warning in the log of intake; the metrics count each refusal by its code."""
    async with ServiceProcess(installed, "run", "intake") as intake:
        await intake.ready()
        await _flood(installed, wrong_keys(300))
        await _flood(installed, ["nonsense"] * 50)

        async def counted() -> bool:
            _, page = await intake.get("/metrics")
            return all(
                f'dispatcher_jobs_refused_total{{code="{code}"}} {count}.0' in page
                for code, count in {"unknown_key": 300, "malformed_key": 50}.items()
            )

        await eventually(counted, "all are counted")
        told = [line for line in intake.lines() if "bad API key" in line["event"]]
        assert len(told) == 1
        assert told[0]["unknown_key"] >= 50
