"""Ids: one app, one id, one job, however often and whenever a message with it is sent."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncIterator
from datetime import UTC, datetime
from typing import Any

import pytest
import pytest_asyncio

from consumers import Registry
from consumers.worker import Worker
from dispatcher import Client
from dispatcher.client import Receipt
from dispatcher.services.intake import Intake
from dispatcher.services.recorder import Recorder
from tests.conftest import run_services
from tests.support import Installation, eventually

jobs = Registry()
#: How often each job's handler was started, by app and id.
executed: Counter[tuple[str, str]] = Counter()
#: Ids of jobs that wait in their handler.
inside: set[str] = set()
go_on = asyncio.Event()


@jobs.handler("ids.plain")
async def plain(payload: dict[str, Any], ctx: Any) -> dict[str, Any]:
    """Count it, and give its payload back."""
    executed[ctx.app, ctx.id] += 1
    return payload


@jobs.handler("ids.slow")
async def slow(_payload: dict[str, Any], ctx: Any) -> None:
    """Wait until the test lets it go on."""
    executed[ctx.app, ctx.id] += 1
    inside.add(ctx.id)
    await go_on.wait()


class Shop:
    """An installation with three intakes, and clients of two apps."""

    def __init__(self, installation: Installation, clients: dict[str, Client]) -> None:
        self.installation = installation
        self.clients = clients

    async def send(self, job_id: str | None, job_type: str = "ids.plain", app: str = "shop", **fields: Any) -> Receipt:
        """Publish, and wait for the answer."""
        return await self.clients[app].submit(job_type, fields.pop("payload", {}), id=job_id, wait=60, **fields)

    async def resent(self, job_id: str, times: int, app: str = "shop") -> dict[str, Any]:
        """The document of a job, once it says that it was sent again so often."""

        def counted() -> dict[str, Any] | None:
            document = self.installation.job(job_id, app)
            return document if document and document.get("resent", 0) == times else None

        document: dict[str, Any] = await eventually(counted, f"{job_id} was sent again {times} times")
        return document


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def shop(installed: Installation) -> AsyncIterator[Shop]:
    """Everything running, for all tests here."""
    settings = installed.settings
    keys = {app: await installed.create_key(app) for app in ("shop", "other")}
    services = [Intake(settings) for _ in range(3)]
    async with run_services(*services, Recorder(settings), Worker(settings, jobs, "tests.integration.test_ids:jobs")):
        clients = {app: Client(installed.amqp_url, key, prefix=settings.amqp.prefix) for app, key in keys.items()}
        for client in clients.values():
            await client.connect()
        yield Shop(installed, clients)
        for client in clients.values():
            await client.close()


pytestmark = [pytest.mark.integration, pytest.mark.asyncio(loop_scope="module")]


async def test_a_job_sent_again_after_its_end_is_the_same_job(shop: Shop) -> None:
    """The first content stands; the answer says duplicate, and the first counts it."""
    first = await shop.send("after", payload={"n": 1})
    await shop.installation.finished("after")
    again = [await shop.send("after", payload={"n": number}) for number in (2, 3)]
    assert first == Receipt("after", accepted=True)
    assert again == [Receipt("after", accepted=True, duplicate=True)] * 2
    document = await shop.resent("after", 2)
    assert (document["state"], document["result"], document["payload"]) == ("succeeded", {"n": 1}, {"n": 1})
    assert executed["shop", "after"] == 1


async def test_a_job_sent_again_while_it_runs_is_the_same_job(shop: Shop) -> None:
    """Nothing starts a second time."""
    await shop.send("during", "ids.slow")
    await eventually(lambda: "during" in inside, "it runs")
    again = await shop.send("during", "ids.slow")
    go_on.set()
    document = await shop.installation.finished("during")
    assert again.duplicate
    assert len(document["attempts"]) == executed["shop", "during"] == 1
    await shop.resent("during", 1)


async def test_many_at_once_are_one_job(shop: Shop) -> None:
    """Twenty messages with one id, in flight together, over three intakes."""
    receipts = await asyncio.gather(*(shop.send("at-once", payload={"n": number}) for number in range(20)))
    assert Counter(receipt.duplicate for receipt in receipts) == {False: 1, True: 19}
    document = await shop.resent("at-once", 19)
    assert executed["shop", "at-once"] == len(document["attempts"]) == 1


async def test_an_id_belongs_to_an_app(shop: Shop) -> None:
    """Another app's same id is another job."""
    mine, theirs = await shop.send("shared"), await shop.send("shared", app="other")
    assert not mine.duplicate
    assert not theirs.duplicate
    for app in ("shop", "other"):
        await shop.installation.finished("shared", app)
        assert executed[app, "shared"] == 1


async def test_a_refusal_claims_no_id(shop: Shop) -> None:
    """What is sent again, put right, is the first message with that id; and so is one with the id of the refusal."""
    refused = await shop.send("put-right", timeout=-1)
    assert refused.code == "invalid_field"
    assert refused.id is not None
    for job_id in ("put-right", refused.id):
        assert await shop.send(job_id) == Receipt(job_id, accepted=True)
        wanted = {"_id": f"shop:{job_id}", "state": "succeeded"}
        await eventually(lambda: shop.installation.db.jobs.find_one(wanted), f"{job_id} succeeded")  # noqa: B023
        assert executed["shop", job_id] == 1


async def test_an_id_that_intake_chose_is_taken_once_history_knows_its_job(shop: Shop) -> None:
    """Nobody chooses it by chance; who was told it may send it."""
    first = await _without_id(shop)
    await shop.installation.finished(first)
    assert (await shop.send(first)).duplicate
    await shop.resent(first, 1)
    assert executed["shop", first] == 1


async def _without_id(shop: Shop) -> str:
    known = {doc["id"] for doc in shop.installation.db.jobs.find({}, {"id": 1})}
    key = await shop.installation.create_key()
    await asyncio.to_thread(shop.installation.publish, "ids.plain", {"payload": {}}, key)

    def found() -> str | None:
        new = [doc["id"] for doc in shop.installation.db.jobs.find({}, {"id": 1}) if doc["id"] not in known]
        return new[0] if new else None

    job_id: str = await eventually(found, "the job without an id is in history")
    return job_id


async def test_an_id_without_a_claim_is_found_in_history(shop: Shop) -> None:
    """Claims go after a day; what history knows stays taken."""
    await shop.send("old")
    await shop.installation.finished("old")
    await eventually(
        lambda: shop.installation.db.claims.delete_one({"_id": "shop:old", "done": True}).deleted_count, "done"
    )
    assert (await shop.send("old")).duplicate
    assert (await shop.resent("old", 1))["attempts"] == (shop.installation.job("old") or {})["attempts"]
    assert executed["shop", "old"] == 1


UNIQUE = {"key": "report of May", "for": 600}


async def test_a_unique_key_is_taken_for_its_window(shop: Shop) -> None:
    """The second ends as a duplicate of the first, and history says of which; other apps have keys of their own."""
    first = await shop.send("u-1", unique=UNIQUE)
    second = await shop.send("u-2", unique=UNIQUE)
    theirs = await shop.send("u-3", unique=UNIQUE, app="other")
    assert (first.duplicate, second.duplicate, theirs.duplicate) == (False, True, False)
    document = await shop.installation.finished("u-2")
    assert (document["state"], document["duplicate_of"], document["attempts"]) == ("duplicate", "u-1", [])
    assert document["unique"]["key"] == "report of May"
    assert (await shop.installation.finished("u-3", "other"))["state"] == "succeeded"
    assert executed["shop", "u-2"] == 0


async def test_after_its_window_a_key_is_free(shop: Shop) -> None:
    """From acceptance on, whatever became of the job."""
    short = {"key": "short", "for": 1}
    await shop.send("w-1", unique=short)
    assert (await shop.send("w-2", unique=short)).duplicate
    document = await shop.installation.finished("w-1")
    await eventually(lambda: _seconds_since(document["accepted_at"]) > 1, "the window is over")
    assert not (await shop.send("w-3", unique=short)).duplicate


def _seconds_since(when: Any) -> float:
    return (datetime.now(UTC) - when).total_seconds()
