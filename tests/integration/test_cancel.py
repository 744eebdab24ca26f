"""``jobs cancel`` on real servers, in every state that a job can be in."""

from __future__ import annotations

import asyncio
import threading
import time
from collections import Counter
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio

from consumers import Context, Registry, Retry, Snooze
from consumers.worker import Worker
from dispatcher.core.cancelling import Tombstone
from dispatcher.edges import clock
from dispatcher.edges.mongo import CancelStore, Database
from dispatcher.services import tombstones
from dispatcher.services.intake import Intake
from dispatcher.services.recorder import Recorder
from dispatcher.services.scheduler import Scheduler
from tests.conftest import run_services
from tests.processes import command, succeed
from tests.support import Installation, eventually

pytestmark = pytest.mark.integration

jobs = Registry()
ran: Counter[str] = Counter()
stopped = threading.Event()


@jobs.handler("c.quick")
async def quick(payload: dict[str, Any], ctx: Context) -> None:
    """Count its starts."""
    ran[ctx.id] += 1


@jobs.handler("c.flaky", retry=Retry(base=8, max_attempts=9, factor=1))
async def flaky(payload: dict[str, Any], ctx: Context) -> None:
    """Fail, so that it waits in the delay ladder."""
    ran[ctx.id] += 1
    raise ConnectionError("not yet")


@jobs.handler("c.sleepy")
async def sleepy(payload: dict[str, Any], ctx: Context) -> None:
    """Put itself off."""
    ran[ctx.id] += 1
    raise Snooze(8)


@jobs.handler("c.long", retry=Retry(base=0.125))
async def long(payload: dict[str, Any], ctx: Context) -> str:
    """Await for long; what it does about its cancellation, the payload says."""
    ran[ctx.id] += 1
    try:
        await asyncio.sleep(120)
    except asyncio.CancelledError:
        if payload.get("swallows"):
            return "finished all the same"
        if payload.get("raises"):
            raise ConnectionError("broken while it cleaned up") from None
        raise
    return "slept"


@jobs.handler("c.thread")
def thread(payload: dict[str, Any], ctx: Context) -> str:
    """Work in a thread until its flag is set."""
    ran[ctx.id] += 1
    deadline = time.monotonic() + 120
    while not ctx.cancelled and time.monotonic() < deadline:
        time.sleep(0.01)
    if ctx.cancelled:
        stopped.set()
    return "dropped"


@pytest_asyncio.fixture
async def shop(installed: Installation) -> AsyncIterator[tuple[Installation, str]]:
    """Intake and recorder running, and a key of app ``shop``."""
    key = await installed.create_key()
    async with run_services(Intake(installed.settings), Recorder(installed.settings)):
        yield installed, key


Shop = tuple[Installation, str]


def worker(installation: Installation) -> Worker:
    """A worker with the handlers above."""
    return Worker(installation.settings, jobs, "tests.integration.test_cancel:jobs")


async def in_state(installation: Installation, job_id: str, state: str) -> dict[str, Any]:
    """The job's document, once it is in this state."""

    def found() -> dict[str, Any] | None:
        document = installation.job(job_id)
        return document if document and document["state"] == state else None

    document: dict[str, Any] = await eventually(found, f"{job_id} is {state}")
    return document


async def test_a_job_that_waits_in_its_queue_never_starts(shop: Shop) -> None:
    """History shows its end with no worker alive; a worker that comes later meets the step and drops it."""
    installation, key = shop
    installation.publish("c.quick", {"id": "queued"}, key)
    await in_state(installation, "queued", "queued")
    said = await succeed(installation, "jobs", "cancel", "queued", "--reason", "ordered twice", "--json")
    assert said.json == {"app": "shop", "id": "queued", "run": 1, "state": "cancelled"}
    document = installation.job("queued")
    assert document is not None
    assert document["state"] == "cancelled"
    assert document["error"] == {"type": "Cancelled", "message": "ordered twice"}
    assert document["finished_at"] is not None
    installation.publish("c.quick", {"id": "behind"}, key)
    async with run_services(worker(installation)):
        await installation.finished("behind")
    assert (ran["queued"], ran["behind"]) == (0, 1)
    again = await command(installation, "jobs", "cancel", "queued")
    assert again.code == 1
    assert "is cancelled: only a job that has not ended" in again.err


@pytest.mark.parametrize(("job_type", "state"), [("c.flaky", "retrying"), ("c.sleepy", "scheduled")])
async def test_a_job_in_the_delay_ladder_never_starts_again(shop: Shop, job_type: str, state: str) -> None:
    """Its step leaves the ladder later, and the worker ends it."""
    installation, key = shop
    async with run_services(worker(installation)):
        installation.publish(job_type, {"id": state}, key)
        await in_state(installation, state, state)
        await succeed(installation, "jobs", "cancel", state)
        document = installation.job(state)
        assert document is not None
        assert document["state"] == "cancelled"
        met = {"_id": f"shop:{state}", "met_at": {"$ne": None}}
        await eventually(lambda: installation.db.cancels.find_one(met), "the worker met the step")
    assert ran[state] == 1
    document = installation.job(state)
    assert document is not None
    assert (document["state"], len(document["attempts"])) == ("cancelled", 1)


@pytest.mark.parametrize("how", ["raises", "swallows", "lets it through"])
async def test_a_running_job_is_cancelled_at_its_next_await(shop: Shop, how: str) -> None:
    """Whatever its handler makes of it: one attempt with outcome cancelled, no retry, no result."""
    installation, key = shop
    job_id = "running-" + how.replace(" ", "-")
    async with run_services(worker(installation)):
        installation.publish("c.long", {"id": job_id, "payload": {how: True}}, key)
        await in_state(installation, job_id, "running")
        said = await succeed(installation, "jobs", "cancel", job_id, "--reason", "too late")
    assert "cancelled" in said.err
    document = installation.job(job_id)
    assert document is not None
    assert (document["state"], document.get("result")) == ("cancelled", None)
    assert [(a["outcome"], a["error"]) for a in document["attempts"]] == [
        ("cancelled", {"type": "Cancelled", "message": "too late"})
    ]
    assert ran[job_id] == 1


async def test_a_thread_is_told_and_its_result_dropped(shop: Shop) -> None:
    """It cannot be stopped; the job ends at once."""
    installation, key = shop
    async with run_services(worker(installation)):
        installation.publish("c.thread", {"id": "thread"}, key)
        await in_state(installation, "thread", "running")
        await succeed(installation, "jobs", "cancel", "thread")
        document = installation.job("thread")
        assert document is not None
        assert (document["state"], document.get("result")) == ("cancelled", None)
        await eventually(stopped.is_set, "the thread saw the flag")


async def test_the_process_of_a_running_job_is_killed(
    shop: Shop, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With what it started."""
    from tests.unit import child_handlers
    from tests.unit.test_executor import ROOT, alive

    installation, key = shop
    monkeypatch.chdir(ROOT)
    file = tmp_path / "pid"
    isolated = Worker(installation.settings, child_handlers.jobs, "tests.unit.child_handlers:jobs")
    async with run_services(isolated):
        installation.publish("hang", {"id": "process", "payload": {"file": str(file)}}, key)
        await eventually(lambda: file.exists() and file.read_text(), "the handler's own child runs")
        await succeed(installation, "jobs", "cancel", "process")
        grandchild = int(file.read_text())
        await eventually(lambda: not alive(grandchild), "the process is gone")
    document = installation.job("process")
    assert document is not None
    assert [(a["outcome"]) for a in document["attempts"]] == ["cancelled"]


async def test_a_retry_by_hand_starts_a_new_run(shop: Shop) -> None:
    """The tombstone stops only the run that was cancelled; the next can be cancelled again."""
    installation, key = shop
    installation.publish("c.quick", {"id": "again"}, key)
    await in_state(installation, "again", "queued")
    await succeed(installation, "jobs", "cancel", "again")
    await succeed(installation, "jobs", "retry", "again")
    await in_state(installation, "again", "queued")
    await succeed(installation, "jobs", "cancel", "again")
    await succeed(installation, "jobs", "retry", "again")
    async with run_services(worker(installation)):
        document = await eventually(lambda: installation.db.jobs.find_one({"_id": "shop:again", "run": 3}), "run 3")
        document = await in_state(installation, "again", "succeeded")
    assert (document["run"], len(document["attempts"]), ran["again"]) == (3, 1, 1)


async def test_a_worker_without_mongodb_begins_all_the_same(shop: Shop, monkeypatch: pytest.MonkeyPatch) -> None:
    """Jobs run by what is known; what is cancelled is learnt when MongoDB is back."""
    installation, key = shop
    away, real = [True], CancelStore.changed_since

    async def changed_since(store: CancelStore, mark: int | None) -> Any:
        if away:
            raise TimeoutError
        return await real(store, mark)

    monkeypatch.setattr(CancelStore, "changed_since", changed_since)
    async with run_services(worker(installation)):
        installation.publish("c.quick", {"id": "without"}, key)
        assert (await installation.finished("without"))["state"] == "succeeded"
        installation.publish("c.long", {"id": "learnt"}, key)
        await in_state(installation, "learnt", "running")
        cancelling = asyncio.create_task(succeed(installation, "jobs", "cancel", "learnt"))
        stands = {"_id": "shop:learnt"}
        await eventually(lambda: installation.db.cancels.find_one(stands), "the tombstone stands")
        assert installation.db.jobs.find_one({"_id": "shop:learnt"})["state"] == "running"
        away.clear()
        await cancelling


async def test_the_scheduler_removes_what_has_done_its_work(
    installed: Installation, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Met by a worker long ago, or of a job that history forgot a month ago; nothing else."""
    settings, now = installed.settings, clock.now_ms()
    database = Database(settings.mongo.url.get_secret_value(), settings.mongo.database)
    store, month = CancelStore(database), 32 * 86_400_000
    for job, at in (("met", now), ("unmet", now), ("forgotten", now - month), ("known", now - month)):
        await store.put(Tombstone(f"old:{job}", 1, "r"), at)
    installed.db.jobs.insert_one({"_id": "old:known"})
    await store.met([Tombstone("old:met", 1, "r")])
    of_ours = {"_id": {"$regex": "^old:"}}
    monkeypatch.setattr(tombstones, "INTERVAL", 0.1)
    monkeypatch.setattr(tombstones, "KEPT_MS", -10_000)
    async with run_services(Scheduler(settings)):
        await eventually(
            lambda: {t["_id"] for t in installed.db.cancels.find(of_ours)} == {"old:unmet", "old:known"}, "two are left"
        )
    installed.db.jobs.delete_one({"_id": "old:known"})
    database.close()


async def test_a_job_that_waits_in_mongodb_for_its_time_is_taken_out(installed: Installation) -> None:
    """In one guarded update: not what a scheduler has claimed, nor a later run."""
    settings = installed.settings
    database = Database(settings.mongo.url.get_secret_value(), settings.mongo.database)
    store, rows = CancelStore(database), installed.db.scheduled
    waiting = {"run": 1, "state": "waiting", "claim": None, "body": b"{}"}
    rows.insert_many(
        [
            {"_id": "due:free", **waiting},
            {"_id": "due:claimed", **waiting, "claim": "token"},
            {"_id": "due:later", **waiting, "run": 2},
        ]
    )
    taken = [await store.unschedule(Tombstone(f"due:{job}", 1, "r")) for job in ("free", "claimed", "later", "none")]
    assert taken == [True, False, False, False]
    free = rows.find_one({"_id": "due:free"})
    assert (free["state"], "body" in free) == ("cancelled", False)
    assert {row["state"] for row in rows.find({"_id": {"$in": ["due:claimed", "due:later"]}})} == {"waiting"}
    rows.delete_many({"_id": {"$regex": "^due:"}})
    database.close()
