"""Retention on real servers: what is old goes, what is not or is not over stays, and statistics say what is there."""

from __future__ import annotations

import asyncio
import json
from collections import Counter
from collections.abc import AsyncIterator
from typing import Any

import pika
import pytest
import pytest_asyncio

from config import Settings
from dispatcher.core.topology import DAY_MS
from dispatcher.edges import clock
from dispatcher.edges.mongo import Database, Forgetting, JobStore, StatisticsStore, Turns
from dispatcher.services import retention
from dispatcher.services.recorder import Recorder
from dispatcher.services.retention import Retention
from dispatcher.services.scheduler import Scheduler
from schemas import Accepted, Ended, Event, JobState, Outcome, Refused, Started
from schemas.events import about, encode_batches
from tests.conftest import make_settings, run_services
from tests.support import Installation, eventually
from tests.unit.samples import make_work

pytestmark = pytest.mark.integration

TYPES = {"audit.*": {"retention": None}, "short.*": {"retention": 2}}


@pytest.fixture(scope="module")
def settings() -> Settings:
    """History for ten days, refusals for five, parked messages for three."""
    return make_settings(
        DISPATCHER_TYPES=json.dumps(TYPES),
        DISPATCHER_RETENTION__HISTORY="10",
        DISPATCHER_RETENTION__REJECTED="5",
        DISPATCHER_RETENTION__PARKED="3",
    )


@pytest_asyncio.fixture
async def database(installed: Installation) -> AsyncIterator[Database]:
    """The installation's, without a document."""
    for name in ("jobs", "stats", "turns", "claims"):
        installed.db[name].delete_many({})
    database = Database(installed.settings.mongo.url.get_secret_value(), installed.settings.mongo.database)
    yield database
    database.close()


def days_ago(days: float) -> int:
    """A time."""
    return clock.now_ms() - round(days * DAY_MS)


def job(job_id: str, job_type: str, accepted: float, ended: float | None) -> list[Event]:
    """A job accepted so many days ago, which ended so many days ago, or runs still."""
    work = make_work(id=job_id, type=job_type, accepted_at=days_ago(accepted))
    common: dict[str, Any] = about(work) | {"n": 1, "execution": f"e-{job_id}", "worker": "w"}
    common["started_at"] = days_ago(accepted)
    events: list[Event] = [Accepted(**about(work), key_id="k", payload={}), Started(**common)]
    if ended is not None:
        events.append(Ended(**common, finished_at=days_ago(ended), outcome=Outcome.SUCCEEDED, state=JobState.SUCCEEDED))
    return events


def refusal(job_id: str, at: float) -> list[Event]:
    """A refusal of so many days ago."""
    return [
        Refused(app="shop", id=job_id, key_id="k", type="email.send", at=days_ago(at), code="forbidden", message="no")
    ]


STORED = {
    "gone": job("gone", "email.send", 12, 11),
    "young": job("young", "email.send", 9.9, 9.8),
    "late-end": job("late-end", "email.send", 20, 9),
    "runs": job("runs", "email.send", 50, None),
    "kept": job("kept", "audit.login", 500, 499),
    "short": job("short", "short.one", 4, 3),
    "short-young": job("short-young", "short.one", 1.9, 1.8),
    "refused": refusal("refused", 6),
    "refused-young": refusal("refused-young", 4),
}
STAY = {"young", "late-end", "runs", "kept", "short-young", "refused-young"}


async def record(installation: Installation, jobs: dict[str, list[Event]]) -> None:
    """Have the recorder write these jobs."""
    with installation.channel() as channel:
        channel.confirm_delivery()
        for body in encode_batches(event for events in jobs.values() for event in events):
            properties = pika.BasicProperties(delivery_mode=2)
            channel.basic_publish("", installation.names.history, body, properties)
    async with run_services(Recorder(installation.settings)):
        await eventually(lambda: installation.db.jobs.count_documents({}) == len(jobs), "all is recorded")


async def statistics_are_exact(installation: Installation, database: Database) -> None:
    """What they say is what the documents say."""
    said: Counter[str] = Counter()
    for cell in await StatisticsStore(database).cells():
        said.update(cell.states)
    assert +said == Counter(doc["state"] for doc in installation.db.jobs.find())


async def test_what_is_older_than_its_days_goes(installed: Installation, database: Database) -> None:
    """By the time of its end, with the days of its type, and its id with it; what is not over stays, however old."""
    await record(installed, STORED)
    statistics = StatisticsStore(database)
    await eventually(lambda: statistics.roll_up(0), "statistics are put together")
    await statistics_are_exact(installed, database)
    installed.db.claims.insert_many([{"_id": f"shop:{job_id}"} for job_id in STORED])
    await Retention(installed.settings, database).forget()
    assert {doc["id"] for doc in installed.db.jobs.find()} == STAY
    assert {claim["_id"] for claim in installed.db.claims.find()} == {f"shop:{job_id}" for job_id in STAY}
    await statistics_are_exact(installed, database)
    await statistics.roll_up(0)
    await statistics_are_exact(installed, database)
    await Retention(installed.settings, database).forget()
    assert {doc["id"] for doc in installed.db.jobs.find()} == STAY


async def test_batches_and_three_at_once(
    installed: Installation, database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    """More documents than a batch has go all the same, and nobody stands in another's way."""
    monkeypatch.setattr("dispatcher.edges.mongo.forgetting.BATCH", 7)
    jobs = {f"j{number}": job(f"j{number}", f"many.t{number % 3}", 12, 11) for number in range(60)}
    await record(installed, jobs | {"runs": job("runs", "many.t0", 12, None)})
    await asyncio.gather(*(Retention(installed.settings, database).forget() for _ in range(3)))
    assert [doc["id"] for doc in installed.db.jobs.find()] == ["runs"]
    await statistics_are_exact(installed, database)


async def test_a_job_that_began_anew_meanwhile_stays(
    installed: Installation, database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It was found as finished, and runs when it would be deleted."""
    await record(installed, {"again": job("again", "email.send", 12, 11)})
    mark = StatisticsStore.mark_dirty

    async def rerun_then_mark(self: StatisticsStore, minutes: Any) -> None:
        installed.db.jobs.update_one({"_id": "shop:again"}, {"$set": {"state": "queued", "run": 2}})
        await mark(self, minutes)

    monkeypatch.setattr(StatisticsStore, "mark_dirty", rerun_then_mark)
    await Retention(installed.settings, database).forget()
    assert installed.job("again") is not None


async def test_the_minutes_are_marked_before_the_documents_go(
    installed: Installation, database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A death in between leaves statistics that count anew, not such that count what is gone."""
    await record(installed, {"gone": job("gone", "email.send", 12, 11)})
    await eventually(lambda: StatisticsStore(database).roll_up(0), "statistics are put together")
    seen: list[bool] = []
    jobs = database.db["jobs"]

    class Dying:
        def __getattr__(self, name: str) -> Any:
            return getattr(jobs, name)

        async def delete_many(self, query: Any) -> Any:
            seen.append(installed.db.stats.count_documents({"dirty_at": {"$ne": None}}) == 1)
            raise ConnectionError("killed")

    forgetting = Forgetting(database)
    monkeypatch.setattr(forgetting, "_jobs", Dying())
    with pytest.raises(ConnectionError):
        await forgetting.forget_type("email.send", days_ago(10))
    assert seen == [True]
    await statistics_are_exact(installed, database)


def put(installation: Installation, queue: str, bodies: dict[str, float | None]) -> None:
    """Messages that were put there so many days ago, or that do not say when."""
    with installation.channel() as channel:
        channel.confirm_delivery()
        for body, days in bodies.items():
            headers = {} if days is None else {"x-at": days_ago(days)}
            channel.basic_publish("", queue, body.encode(), pika.BasicProperties(delivery_mode=2, headers=headers))


async def left(installation: Installation, queue: str) -> list[str]:
    """What a queue holds once the broker has put back what was looked at."""
    return [body.decode() for _, body in installation.drain(queue)]


async def test_old_messages_leave_their_queues(installed: Installation, database: Database) -> None:
    """The others stay in their order; one that does not say when it came is left to the queue's own limit."""
    names = installed.names
    put(installed, names.rejected, {"unknown": None, "old": 6, "old2": 5.5, "young": 4, "youngest": 0})
    put(installed, names.parked("default"), {"old": 4, "young": 2})
    put(installed, names.parked("bulk"), {"replayed": 1, "old": 4, "young": 0})
    await Retention(installed.settings, database).sweep()
    depths = {names.rejected: 3, names.parked("default"): 1, names.parked("bulk"): 2}
    await eventually(lambda: all(installed.depth(queue) == n for queue, n in depths.items()), "all is put back")
    assert await left(installed, names.rejected) == ["unknown", "young", "youngest"]
    assert await left(installed, names.parked("default")) == ["young"]
    assert await left(installed, names.parked("bulk")) == ["replayed", "young"]


async def test_a_pass_looks_at_few_that_stay(
    installed: Installation, database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A million parked messages cost no more than what is taken out; much of that goes in several turns."""
    monkeypatch.setattr(retention, "STAYING", 3)
    monkeypatch.setattr(retention, "TAKEN", 10)
    monkeypatch.setattr(retention, "PAUSE", 0)
    looked: list[int] = []
    sift = retention.sift

    async def watched(*args: Any, **kwargs: Any) -> Any:
        sifted = await sift(*args, **kwargs)
        looked.append(sifted.seen)
        return sifted

    monkeypatch.setattr(retention, "sift", watched)
    queue = installed.names.parked("default")
    put(installed, queue, {f"old{n}": 4 for n in range(25)} | {f"young{n}": 1 for n in range(40)})
    await Retention(installed.settings, database)._sweep(queue, "parked", 3)
    assert looked == [10, 10, 8]
    assert installed.depth(queue) == 40, "the rest is put back"
    assert await left(installed, queue) == [f"young{n}" for n in range(40)]


async def test_one_scheduler_at_a_time_has_the_turn(database: Database) -> None:
    """Of many that ask at once one gets it, and nobody before it is over."""
    turns = Turns(database)
    assert sum(await asyncio.gather(*(turns.take("a", 60) for _ in range(10)))) == 1
    assert not await turns.take("a", 60)
    assert await turns.take("b", 0.05)
    await eventually(lambda: turns.take("b", 60), "the turn is over")


async def test_schedulers_do_it(installed: Installation, database: Database) -> None:
    """Two of them, by themselves."""
    await record(installed, STORED)
    put(installed, installed.names.parked("bulk"), {"old": 4, "young": 0})
    async with run_services(Scheduler(installed.settings), Scheduler(installed.settings)):
        await eventually(lambda: {doc["id"] for doc in installed.db.jobs.find()} == STAY, "what is old is gone")
        await eventually(lambda: installed.depth(installed.names.parked("bulk")) == 1, "and out of the queue")
    assert await JobStore(database).apps() == ["shop"]
