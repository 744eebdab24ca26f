"""Jobs with long delays: kept in MongoDB, moved, released in time by any number of schedulers."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from consumers import Context, Registry
from consumers.worker import Worker
from dispatcher.edges import clock
from dispatcher.edges.mongo import Database, ScheduledStore
from dispatcher.services.intake import Intake
from dispatcher.services.recorder import Recorder
from dispatcher.services.scheduler import Scheduler
from schemas import Accepted, WorkMessage
from schemas.events import about, encode_batches
from tests.conftest import make_settings, run_services
from tests.processes import invoke, invoked
from tests.proxy import Outage, outage
from tests.support import Installation, eventually

pytestmark = pytest.mark.integration

jobs = Registry()


#: How often each job was started.
ran: Counter[str] = Counter()


@jobs.handler("plan.plain")
async def plain(payload: dict[str, Any], ctx: Context) -> None:
    """Count its starts, by the name in its payload where it has one."""
    ran[payload.get("name", ctx.id)] += 1


def a_worker(installation: Installation) -> Worker:
    """A worker of this module's handlers."""
    return Worker(installation.settings, jobs, "tests.integration.test_scheduled:jobs")


def a_job(job_id: str, due_in: float, expires_in: float | None = None) -> WorkMessage:
    """A job as intake would have published it, long ago."""
    now = clock.now_ms()
    return WorkMessage(
        app="shop", id=job_id, type="plan.plain", lane="default", priority="normal", accepted_at=now - 120_000,
        payload={}, due_at=now + round(due_in * 1000),
        expires_at=None if expires_in is None else now + round(expires_in * 1000),
    )  # fmt: skip


def publish(installation: Installation, *works: WorkMessage) -> None:
    """What intake publishes of jobs with long delays."""
    accepted = [
        Accepted(**about(w), key_id="k", payload=w.payload, due_at=w.due_at, expires_at=w.expires_at) for w in works
    ]
    messages = [(installation.names.history, body) for body in encode_batches(accepted)]
    messages += [(installation.names.scheduled, w.encode()) for w in works]
    installation.publish_many(messages, exchange="")


def kept(installation: Installation, job_id: str) -> dict[str, Any] | None:
    """A job's document among the scheduled ones."""
    found: dict[str, Any] | None = installation.db.scheduled.find_one({"_id": f"shop:{job_id}"})
    return found


def kept_as(installation: Installation, job_id: str, state: str) -> dict[str, Any] | None:
    """The same, where it is in this state."""
    found = kept(installation, job_id)
    return found if found is not None and found["state"] == state else None


def on_time(done: dict[str, Any]) -> None:
    """It ran once, not before its time."""
    (attempt,) = done["attempts"]
    assert (done["state"], attempt["started_at"] >= done["run_at"]) == ("succeeded", True)


async def test_a_long_delay_is_kept_listed_and_moved(installed: Installation) -> None:
    """It waits in MongoDB; moved later and then to now, it shows the new time and starts."""
    key = await installed.create_key()
    settings = installed.settings
    async with run_services(Intake(settings), Recorder(settings), Scheduler(settings), a_worker(installed)):
        installed.publish("plan.plain", {"id": "k-long", "delay": 3600}, key)
        await eventually(lambda: kept(installed, "k-long"), "the job is kept")
        await eventually(lambda: installed.job("k-long"), "history has it")
        shown = await invoked(installed, "jobs", "reschedule", "k-long", "--delay", "2h", "--json")
        due = datetime.fromisoformat(shown.json["due_at"])
        moved = await eventually(
            lambda: (doc := installed.job("k-long")) and doc["due_at"] == due and doc, "history shows the new time"
        )
        assert (moved["state"], moved["run_at"], moved["attempts"]) == ("scheduled", due, [])
        assert moved["rescheduled"]["at"] > moved["accepted_at"]
        assert kept(installed, "k-long")["due_at"] == due  # type: ignore[index]
        await invoked(installed, "jobs", "reschedule", "shop:k-long", "--at", "2001-01-01T00:00:00Z")
        done = await installed.finished("k-long")
        on_time(done)
        assert done["wait_ms"] < 60_000
        late = await asyncio.to_thread(invoke, installed, "jobs", "reschedule", "k-long", "--delay", "2h")
        assert (late.code, "succeeded" in late.err) == (1, True)
    assert (await asyncio.to_thread(invoke, installed, "jobs", "reschedule", "k-long")).code == 2
    left = kept(installed, "k-long")
    assert left is not None
    assert (left["state"], "body" in left) == ("released", False)


async def test_three_schedulers_release_each_job_once_and_in_time(installed: Installation) -> None:
    """Hundreds due in the same second, and some before: nothing is early, twice or left over."""
    settings = installed.settings
    works = [a_job(f"m-{n}", 6 if n % 10 else 3) for n in range(600)]
    async with run_services(Recorder(settings), a_worker(installed), *(Scheduler(settings) for _ in range(3))):
        await asyncio.to_thread(publish, installed, *works)
        for work in works:
            on_time(await installed.finished(work.id))
    assert installed.db.scheduled.count_documents({"_id": {"$regex": "^shop:m-"}, "state": "released"}) == 600


async def test_what_is_no_job_is_parked_and_dated(installed: Installation) -> None:
    """With its time, by which retention finds it; jobs beside it are kept."""
    names, queue = installed.names, installed.names.parked("default")
    installed.publish_many(
        [(names.scheduled, b"no job"), (names.scheduled, a_job("p-beside", 900).encode())], exchange=""
    )
    before = clock.now_ms()
    async with run_services(Scheduler(installed.settings)):
        await eventually(lambda: installed.depth(queue), "it is parked")
        await eventually(lambda: kept(installed, "p-beside"), "the job is kept")
    ((headers, body),) = installed.drain(queue)
    assert (body, headers["x-error"]) == (b"no job", "not a work message")
    assert before <= headers["x-at"] <= clock.now_ms()
    assert installed.depth(names.scheduled) == 0


async def test_a_stop_finishes_what_is_being_kept(installed: Installation, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is acknowledged: nothing is put away twice because a scheduler was stopped."""
    insert = ScheduledStore.insert

    async def slowly(store: ScheduledStore, works: Sequence[tuple[WorkMessage, bytes]]) -> None:
        await insert(store, works)
        await asyncio.sleep(0.5)

    monkeypatch.setattr(ScheduledStore, "insert", slowly)
    publish(installed, a_job("s-stopped", 900))
    async with run_services(Scheduler(installed.settings)):
        await eventually(lambda: kept(installed, "s-stopped"), "the job is kept")
    assert installed.depth(installed.names.scheduled) == 0


async def test_what_comes_again_after_its_release_is_not_released_again(installed: Installation) -> None:
    """A message whose acknowledgement was lost finds its job there."""
    settings = installed.settings
    work = a_job("r-again", 0.5)
    async with run_services(Recorder(settings), Scheduler(settings), a_worker(installed)):
        publish(installed, work)
        on_time(await installed.finished("r-again"))
        released = await eventually(
            lambda: (d := kept(installed, "r-again")) and d["state"] == "released" and d, "marked"
        )
        installed.publish(installed.names.scheduled, work.encode(), exchange="")
        await eventually(lambda: not installed.depth(installed.names.scheduled), "it is taken")
    assert kept(installed, "r-again") == released
    assert installed.depth(installed.names.work_queue("default", "normal")) == 0


async def test_a_dead_schedulers_claim_is_taken_over_and_marked(installed: Installation) -> None:
    """Killed after its claim, perhaps after the publish: the next one publishes the job marked, and it runs in time."""
    settings = installed.settings
    database = Database(settings.mongo.url.get_secret_value(), settings.mongo.database)
    store = ScheduledStore(database)
    work = a_job("c-dead", 14)
    await store.insert([(work, work.encode())])
    claim = await store.claim("the dead one", clock.now_ms() + 20_000, 10)
    assert [(c.id, c.again) for c in claim] == [("shop:c-dead", False)]
    assert await store.claim("too early", clock.now_ms() + 20_000, 10) == []
    assert await store.get("shop", "c-dead") is None
    assert not await store.replace(work, a_job("c-dead", 900))
    again = await eventually(lambda: store.claim("the next", clock.now_ms() + 20_000, 10), "its claim is over")
    assert [(c.id, c.again) for c in again] == [("shop:c-dead", True)]
    await store.mark_released("the dead one", ["shop:c-dead"])
    assert kept(installed, "c-dead")["state"] == "waiting"  # type: ignore[index]
    database.close()
    async with run_services(Recorder(settings), Scheduler(settings), a_worker(installed)):
        publish(installed, work)
        on_time(await installed.finished("c-dead"))
    assert kept(installed, "c-dead")["claims"] == 3  # type: ignore[index]


async def test_a_job_that_expires_while_it_waits_ends_then(installed: Installation) -> None:
    """Not when it would have been due, an hour later."""
    settings = installed.settings
    async with run_services(Recorder(settings), Scheduler(settings)):
        publish(installed, a_job("x-waits", 3600, expires_in=1))
        done = await installed.finished("x-waits")
    assert (done["state"], done["attempts"]) == ("expired", [])


async def test_what_strays_is_brought_back_at_its_time(installed: Installation) -> None:
    """A step that is not due yet waits on in the ladder; one that has expired ends."""
    settings = installed.settings
    fine, late = a_job("b-due", 1), a_job("b-late", 1, expires_in=-1)
    async with run_services(Recorder(settings), Scheduler(settings), a_worker(installed)):
        installed.publish_many([(installed.names.stray, w.encode()) for w in (fine, late)], exchange="")
        done = await installed.finished("b-due")
        due = datetime.fromtimestamp((fine.due_at or 0) / 1000, UTC)
        assert done["attempts"][0]["started_at"] >= due - timedelta(milliseconds=1)
        assert (await installed.finished("b-late"))["state"] == "expired"


def through(away: Outage, installation: Installation) -> Installation:
    """The same installation, with MongoDB behind a proxy."""
    environment = installation.environment()
    own = {n: environment[n] for n in ("DISPATCHER_AMQP__PREFIX", "DISPATCHER_MONGO__DATABASE", "DISPATCHER_LANES")}
    # the driver would go round the proxy to the address that the replica set names
    url = away.proxy.url(environment["DISPATCHER_MONGO__URL"]).partition("?")[0] + "?directConnection=true"
    return Installation(make_settings(**own, DISPATCHER_MONGO__URL=url))


async def test_without_mongodb_what_waits_stays_in_the_broker_and_plain_jobs_run(
    installed: Installation, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It goes away when jobs were published and are about to be marked as released, and others arrive meanwhile."""
    key, mark = await installed.create_key(), ScheduledStore.mark_released
    before, meanwhile = ([a_job(f"{when}-{n}", due) for n in range(3)] for when, due in (("a-mark", 9), ("a-keep", 10)))
    names = installed.names
    with outage(installed.environment()["DISPATCHER_MONGO__URL"]) as away:
        cut_off = through(away, installed)
        settings = cut_off.settings

        async def mark_released(store: ScheduledStore, token: str, ids: Any) -> None:
            monkeypatch.setattr(ScheduledStore, "mark_released", mark)
            assert away.begin()
            await mark(store, token, ids)

        monkeypatch.setattr(ScheduledStore, "mark_released", mark_released)
        workers = [a_worker(cut_off) for _ in range(2)]
        scheduler = Scheduler(settings)
        async with run_services(Intake(settings), Recorder(settings), scheduler, *workers):
            publish(installed, *before)
            await eventually(lambda: away.proxy.refusing, "they are published and not marked")
            publish(installed, *meanwhile)
            # without ids, which would be claimed in MongoDB
            installed.publish_many([("plan.plain", {"payload": {"name": f"a-plain-{n}"}}) for n in range(5)], key)
            await eventually(lambda: all(ran[f"a-plain-{n}"] for n in range(5)), "plain jobs run")
            await eventually(
                lambda: installed.depth(names.scheduled) == len(meanwhile), "the others wait in the broker"
            )
            await eventually(lambda: not scheduler.checks()["agenda"], "the scheduler says that it takes none")
            assert away.proxy.refusing
            away.end()
            for work in (*before, *meanwhile):
                on_time(await installed.finished(work.id))
            plain_ones = {"payload.name": {"$regex": "^a-plain-"}, "state": "succeeded"}
            await eventually(lambda: installed.db.jobs.count_documents(plain_ones) == 5, "history has the plain jobs")
            every = {"_id": {"$regex": "^shop:a-"}, "state": "released"}
            await eventually(lambda: installed.db.scheduled.count_documents(every) == 6, "all are marked")
        cut_off.mongo.close()
    claims = {doc["id"]: doc["claims"] for doc in installed.db.scheduled.find(every)}
    assert claims == {work.id: 2 for work in before} | {work.id: 1 for work in meanwhile}
    assert {job: n for job, n in ran.items() if job.startswith("a-")} == dict.fromkeys(
        [*claims, *(f"a-plain-{n}" for n in range(5))], 1
    )
    assert installed.depth(names.scheduled) == installed.depth(names.history) == 0
