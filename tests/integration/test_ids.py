"""Ids: one app, one id, one job, however often and whenever a message with it is sent."""

from __future__ import annotations

import asyncio
import random
from collections import Counter
from collections.abc import AsyncIterator
from datetime import UTC, datetime
from typing import Any

import pytest
import pytest_asyncio

from consumers import Registry, Retry
from consumers.worker import Worker
from dispatcher import Client
from dispatcher.client import Receipt
from dispatcher.services.intake import Intake
from dispatcher.services.recorder import Recorder
from tests.conftest import run_services
from tests.processes import command
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


@jobs.handler("ids.failing", retry=Retry(max_attempts=1))
async def failing(_payload: dict[str, Any], ctx: Any) -> None:
    """Fail at once."""
    executed[ctx.app, ctx.id] += 1
    raise ValueError("never")


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


async def test_a_flood_of_messages_sent_again_is_one_job_for_each_id(shop: Shop) -> None:
    """Two hundred ids five times each, in any order and together over three intakes; each job counts the other four."""
    ids = [f"flood-{number}" for number in range(200)]
    order = ids * 5
    random.Random(7).shuffle(order)
    await asyncio.gather(*(shop.clients["shop"].publish("ids.plain", {}, id=job_id) for job_id in order))
    done = {"id": {"$in": ids}, "state": "succeeded", "resent": 4}
    await eventually(lambda: shop.installation.db.jobs.count_documents(done) == len(ids), "each was sent again 4 times")
    assert {executed["shop", job_id] for job_id in ids} == {1}
    found = list(shop.installation.db.jobs.find({"id": {"$in": ids}}, {"attempts": 1}))
    assert [len(document["attempts"]) for document in found] == [1] * len(ids)


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


@pytest.mark.parametrize("first", ["ids.plain", "ids.failing"], ids=["succeeds", "fails"])
@pytest.mark.parametrize("until", ["window", "success", "final"])
async def test_the_end_of_the_first_job_gives_the_key_free_if_asked(shop: Shop, until: str, first: str) -> None:
    """Never; if it did not succeed; always. The next job has the key then, for a window of its own."""
    name = f"{until}-{first}"
    unique = {"key": name, "for": 600, "until": until}
    await shop.send(f"{name}-1", first, unique=unique)
    await shop.installation.finished(f"{name}-1")
    free = until == "final" or (until == "success" and first == "ids.failing")
    second = await shop.send(f"{name}-2", unique=unique)
    document = await shop.installation.finished(f"{name}-2")
    assert (second.duplicate, document["state"]) == (not free, "succeeded" if free else "duplicate")
    holder = shop.installation.db.unique_keys.find_one({"_id": f"shop:{name}"}) or {}
    assert holder["job"] == (f"{name}-2" if free else f"{name}-1")


async def test_a_job_that_waits_or_runs_has_its_key_until_its_end(shop: Shop) -> None:
    """`final` takes nothing from a job that has not ended."""
    go_on.clear()
    unique = {"key": "one at a time", "for": 600, "until": "final"}
    await shop.send("one-1", "ids.slow", unique=unique)
    await eventually(lambda: "one-1" in inside, "it runs")
    assert (await shop.send("one-2", unique=unique)).duplicate
    go_on.set()
    await shop.installation.finished("one-1")
    assert not (await shop.send("one-3", unique=unique)).duplicate


async def test_what_is_erased_frees_its_id_and_its_key(shop: Shop) -> None:
    """The same message is another job then."""
    unique = {"key": "erased", "for": 600}
    await shop.send("erased", unique=unique)
    await shop.installation.finished("erased")
    marked = {"job": "erased", "done": True}
    await eventually(lambda: shop.installation.db.unique_keys.count_documents(marked) == 1, "its claims are done")
    ended = await command(shop.installation, "jobs", "erase", "erased", "--app", "shop", "--yes", "--json")
    assert ended.code == 0, ended.err
    assert shop.installation.job("erased") is None
    assert (await shop.send("erased", unique=unique)) == Receipt("erased", accepted=True)
    assert (await shop.installation.finished("erased"))["state"] == "succeeded"
    assert executed["shop", "erased"] == 2


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
