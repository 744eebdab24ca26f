"""Groups: members wait for one another, and their handler gets them together."""

from __future__ import annotations

import asyncio
import time
from collections import defaultdict
from collections.abc import AsyncIterator
from typing import Any

import pytest
import pytest_asyncio

from consumers import BatchContext, Cancel, Registry, Retry, Snooze
from consumers.worker import Worker
from dispatcher import Client
from dispatcher.services.intake import Intake
from dispatcher.services.recorder import Recorder
from dispatcher.services.scheduler import Scheduler
from schemas import BatchMessage
from tests.conftest import run_services
from tests.processes import succeed
from tests.support import Installation, eventually
from tests.unit.samples import make_work

pytestmark = [pytest.mark.integration, pytest.mark.asyncio(loop_scope="module")]

jobs = Registry()
#: What each call of a batch handler got, by job type: time, batch and payloads.
calls: defaultdict[str, list[tuple[float, str, list[dict[str, Any]]]]] = defaultdict(list)
go_on = asyncio.Event()


def note(ctx: BatchContext, payloads: list[dict[str, Any]]) -> None:
    """Keep a call."""
    calls[ctx.type].append((time.time(), ctx.id, payloads))


@jobs.handler("group.plain")
async def plain(payloads: list[dict[str, Any]], ctx: BatchContext) -> list[Any]:
    """Each member's result is its own."""
    note(ctx, payloads)
    return [{"n": payload.get("n"), "of": len(payloads)} for payload in payloads]


@jobs.handler("group.mixed", retry=Retry(max_attempts=2, base=0.25, never=(KeyError,)))
async def mixed(payloads: list[dict[str, Any]], ctx: BatchContext) -> list[Any]:
    """Members that fail, once or always, are put off, or end."""
    note(ctx, payloads)
    errors: dict[str, Any] = {
        "never": KeyError("never again"),
        "always": ValueError("always"),
        "once": ValueError("once") if ctx.members[0].attempt == 1 else "at last",
        "snooze": Snooze(0.25) if len(payloads) > 1 else "awake",
        "cancel": Cancel("not needed"),
    }
    return [errors.get(payload["how"], payload["how"]) for payload in payloads]


@jobs.handler("group.raises", retry=Retry(max_attempts=2, base=0.25))
async def raises(payloads: list[dict[str, Any]], ctx: BatchContext) -> None:
    """A batch fails as a whole; its members succeed alone."""
    note(ctx, payloads)
    if len(payloads) > 1:
        raise ConnectionError("all of it")


@jobs.handler("group.slow")
async def slow(payloads: list[dict[str, Any]], ctx: BatchContext) -> None:
    """Wait until the test lets it go on."""
    note(ctx, payloads)
    await go_on.wait()


@jobs.handler("group.lone")
async def lone(payload: dict[str, Any], ctx: Any) -> None:
    """No batch handler."""
    calls[ctx.type].append((time.time(), ctx.id, [payload]))


class Shop:
    """An installation with two dispatchers and a worker, and a client."""

    def __init__(self, installation: Installation, client: Client) -> None:
        self.installation = installation
        self.client = client

    async def send(self, kind: str, key: str, count: int, *, first: int = 0, **fields: Any) -> list[str]:
        """Publish members ``<key>-0``, … of a group; returns their ids."""
        group = {"key": key, "max_size": 1_000, "max_wait": 60.0} | fields.pop("group", {})
        payload = fields.pop("payload", lambda n: {"n": n})
        names = [f"{key}-{n}" for n in range(first, first + count)]
        await asyncio.gather(
            *(
                self.client.publish(f"group.{kind}", payload(n), id=name, group=group, **fields)
                for n, name in enumerate(names, first)
            )
        )
        return names

    async def finished(self, names: list[str]) -> list[dict[str, Any]]:
        """Their documents, once all of them are final."""
        return [await self.installation.finished(name) for name in names]

    async def in_state(self, names: list[str], state: str) -> None:
        """Wait until history says so of all of them."""
        query = {"id": {"$in": names}, "state": state}
        await eventually(lambda: self.installation.db.jobs.count_documents(query) == len(names), f"all are {state}")


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def shop(installed: Installation) -> AsyncIterator[Shop]:
    """Everything running, for all tests here."""
    settings = installed.settings
    key = await installed.create_key()
    worker = Worker(settings, jobs, "tests.integration.test_groups:jobs")
    intakes = [Intake(settings), Intake(settings)]
    async with run_services(*intakes, Recorder(settings), Scheduler(settings), worker):
        client = Client(installed.amqp_url, key, prefix=settings.amqp.prefix)
        await client.connect()
        yield Shop(installed, client)
        await client.close()


def of_batch(kind: str, batch: str) -> list[dict[str, Any]]:
    """What the handler got with this batch."""
    (found,) = [payloads for _, name, payloads in calls[f"group.{kind}"] if name == batch]
    return found


async def test_members_wait_until_their_group_is_complete(shop: Shop) -> None:
    """They are buffered, and no worker sees them; the last one completes the group, and all are delivered together."""
    names = await shop.send("plain", "size", 6, group={"max_size": 7})
    await shop.in_state(names, "buffered")
    assert not calls["group.plain"]
    names += await shop.send("plain", "size", 1, first=6, group={"max_size": 7})
    documents = await shop.finished(names)
    (batch,) = {document["batch"] for document in documents}
    assert sorted(payload["n"] for payload in of_batch("plain", batch)) == list(range(7))
    for n, document in enumerate(documents):
        (attempt,) = document["attempts"]
        assert (document["state"], document["result"]) == ("succeeded", {"n": n, "of": 7})
        assert (attempt["batch"], attempt["outcome"], attempt["n"]) == (batch, "succeeded", 1)
        assert document["group"] == {"key": "size", "max_size": 7, "max_wait": 60.0}
    assert len({document["attempts"][0]["execution"] for document in documents}) == 7


async def test_a_group_waits_no_longer_than_its_first_member_asked(shop: Shop) -> None:
    """From its acceptance; a later member with a longer wait changes nothing."""
    wait = 2.0
    names = await shop.send("plain", "time", 1, group={"max_wait": wait})
    names += await shop.send("plain", "time", 3, first=1, group={"max_wait": 900.0})
    documents = await shop.finished(names)
    accepted = min(document["accepted_at"] for document in documents)
    started = min(document["attempts"][0]["started_at"] for document in documents)
    assert len({document["batch"] for document in documents}) == 1
    assert wait <= (started - accepted).total_seconds() < 60.0


async def test_members_may_fail_alone(shop: Shop) -> None:
    """Each goes its own way from there: retried, parked, put off, ended; a lone member is a list of one."""
    how = ["fine", "never", "always", "once", "snooze", "cancel"]
    names = await shop.send("mixed", "mixed", 6, group={"max_size": 6}, payload=lambda n: {"how": how[n]})
    documents = dict(zip(how, await shop.finished(names), strict=True))
    assert {name: document["state"] for name, document in documents.items()} == {
        "fine": "succeeded",
        "never": "failed",
        "always": "failed",
        "once": "succeeded",
        "snooze": "succeeded",
        "cancel": "cancelled",
    }
    outcomes = {name: [(a["n"], a["outcome"]) for a in doc["attempts"]] for name, doc in documents.items()}
    assert outcomes == {
        "fine": [(1, "succeeded")],
        "never": [(1, "failed")],
        "always": [(1, "failed"), (2, "failed")],
        "once": [(1, "failed"), (2, "succeeded")],
        "snooze": [(1, "snoozed"), (1, "succeeded")],
        "cancel": [(1, "cancelled")],
    }
    assert documents["never"]["error"]["type"] == "KeyError"
    assert documents["once"]["result"] == "at last"
    sizes = sorted(len(payloads) for _, _, payloads in calls["group.mixed"])
    assert sizes == [1, 1, 1, 6]
    assert "batch" not in documents["once"]["attempts"][1]
    parked = [body for _, body in shop.installation.drain(shop.installation.names.parked("default"))]
    assert sorted(n for n in names if any(f'"{n}"'.encode() in body for body in parked)) == ["mixed-1", "mixed-2"]


async def test_a_batch_may_fail_as_a_whole(shop: Shop) -> None:
    """Then its members are tried again one by one, so that the one that failed it cannot do so twice."""
    documents = await shop.finished(await shop.send("raises", "raises", 4, group={"max_size": 4}))
    for document in documents:
        assert [(a["n"], a["outcome"]) for a in document["attempts"]] == [(1, "failed"), (2, "succeeded")]
        assert document["attempts"][0]["error"]["type"] == "ConnectionError"
    assert sorted(len(payloads) for _, _, payloads in calls["group.raises"]) == [1, 1, 1, 1, 4]


async def test_without_a_batch_handler_members_come_one_by_one(shop: Shop) -> None:
    """They are gathered, and then run as other jobs are."""
    names = await shop.send("lone", "lone", 5, group={"max_size": 5})
    documents = await shop.finished(names)
    assert sorted(name for _, name, _ in calls["group.lone"]) == names
    assert len({document["batch"] for document in documents}) == 1
    assert {document["state"] for document in documents} == {"succeeded"}


async def test_a_lone_job_is_a_list_of_one(shop: Shop) -> None:
    """A batch handler gets it so."""
    await shop.client.publish("group.plain", {"n": 1}, id="single")
    document = await shop.installation.finished("single")
    assert document["result"] == {"n": 1, "of": 1}
    assert "batch" not in document


async def test_groups_are_apart(shop: Shop) -> None:
    """By key, priority and type; what is cancelled or expired meanwhile does not start."""
    names = await shop.send("plain", "apart", 2, group={"max_wait": 1.5})
    names += await shop.send("plain", "apart", 2, first=2, group={"max_wait": 1.5}, priority="high")
    expiring = await shop.send("plain", "apart", 1, first=4, group={"max_wait": 1.5}, expires=0.5)
    documents = await shop.finished(names)
    assert [document["batch"] for document in documents[:2]] == [documents[0]["batch"]] * 2
    assert [document["batch"] for document in documents[2:]] == [documents[2]["batch"]] * 2
    assert documents[0]["batch"] != documents[2]["batch"]
    (expired,) = await shop.finished(expiring)
    assert (expired["state"], expired["attempts"]) == ("expired", [])


async def test_a_member_that_is_cancelled_while_it_waits_does_not_start(shop: Shop) -> None:
    """The others of its batch do; it ends when that reaches a worker. Run by hand, a member is alone."""
    installation = shop.installation
    names = await shop.send("plain", "cancelled", 3, group={"max_wait": 3.0})
    await shop.in_state(names, "buffered")
    await succeed(installation, "jobs", "cancel", names[1])
    documents = await shop.finished(names)
    assert [document["state"] for document in documents] == ["succeeded", "cancelled", "succeeded"]
    assert sorted(payload["n"] for payload in of_batch("plain", documents[0]["batch"])) == [0, 2]
    await succeed(installation, "jobs", "retry", names[1])
    document = await installation.finished(names[1])
    assert (document["run"], document["result"]) == (2, {"n": 1, "of": 1})


async def test_a_delayed_member_joins_when_it_is_due(shop: Shop) -> None:
    """Its wait begins then, and it does not start before."""
    names = await shop.send("plain", "delayed", 2, group={"max_wait": 0.5}, delay=1.0)
    await shop.in_state(names, "scheduled")
    documents = await shop.finished(names)
    assert len({document["batch"] for document in documents}) == 1
    for document in documents:
        waited = (document["attempts"][0]["started_at"] - document["accepted_at"]).total_seconds()
        assert 1.5 <= waited < 60.0


async def test_a_large_group_is_many_batches(shop: Shop) -> None:
    """Of 200 KiB each, no more go together than 4 MiB; all of them run."""
    large = "x" * 200_000
    names = await shop.send("plain", "large", 45, group={"max_wait": 1.0}, payload=lambda n: {"n": n, "x": large})
    documents = await shop.finished(names)
    sizes: defaultdict[str, int] = defaultdict(int)
    for document in documents:
        sizes[document["batch"]] += 1
        assert document["state"] == "succeeded"
    assert max(sizes.values()) == (4 << 20) // 200_000 - 0
    assert len(sizes) == 3


async def test_a_batch_of_which_members_went_on_runs_the_others(shop: Shop) -> None:
    """The same members in another batch, as after a crash: each runs once."""
    installation = shop.installation
    go_on.clear()
    names = await shop.send("slow", "twice", 3, group={"max_size": 3})
    await eventually(lambda: calls["group.slow"], "the batch runs")
    other = BatchMessage(batch="another", members=tuple(a_member(name) for name in (*names, "twice-3")))
    installation.publish_many(
        [("default.normal", other.encode())], exchange=installation.names.work, headers={"x-again": True}
    )
    go_on.set()
    documents = await shop.finished([*names, "twice-3"])
    assert [len(document["attempts"]) for document in documents] == [1, 1, 1, 1]
    assert [(batch, len(payloads)) for _, batch, payloads in calls["group.slow"]][1:] == [("another", 1)]


def a_member(name: str) -> Any:
    """A member of `group.slow` as it is in its batch."""
    return make_work(app="shop", id=name, type="group.slow", seq=2)


async def test_nothing_of_a_group_is_left(shop: Shop) -> None:
    """After all of these, no partition holds anything."""
    installation = shop.installation
    for partition in range(16):
        assert installation.depth(installation.names.group(partition)) == 0
