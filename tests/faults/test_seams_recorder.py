"""The recorder and the scheduler die at each of their seams; ordinary ones go on, and the outcome is the right one.

What the recorder does for a message of events, in this order (each step is a case below):

    the minutes marked in ``stats``; new jobs inserted, known ones updated in ``jobs``;
    what MongoDB refuses, and bytes that are no events, published to ``unrecorded.v1``;
    whoever put a mark behind it told that it is written;
    the message and the mark acknowledged

What the scheduler does:

    a quiet minute's documents counted; its cells stored in ``stats`` and its mark taken away; then the next minute
    a stray step published to its work queue, or parked with Moved where its lane is gone; then acknowledged
"""

from __future__ import annotations

import asyncio
import functools
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from dispatcher.core.lifecycle import FINAL
from dispatcher.edges import clock
from dispatcher.edges.amqp import Peers
from dispatcher.edges.mongo import JobStore, StatisticsStore
from dispatcher.services.recorder import Recorder
from dispatcher.services.scheduler import Scheduler
from schemas import Accepted, Ended, Event, JobState, Outcome, WorkMessage
from schemas.events import MARK, encode_batches
from tests.conftest import run_services
from tests.faults.aftermath import Stop, installed, left, statistics_match, stopped
from tests.support import Installation, eventually

pytestmark = [pytest.mark.faults, pytest.mark.timeout(600)]

MINUTE = 60_000
NOW = 1_800_000_000_000 // MINUTE * MINUTE
#: What no document of MongoDB holds.
TOO_LARGE = 2**70


@dataclass(frozen=True)
class Case:
    """Where a process dies, and what must be left; the name is the id of its job."""

    name: str
    at: str
    where: str = ""
    #: Copies in ``unrecorded.v1``, in the work queue or among the parked.
    copies: int = 0


RECORDED = [
    Case("job-unmarked", "unmarked"),
    Case("job-marked", "marked"),
    Case("job-inserted", "inserted"),
    Case("job-recorded", "recorded"),
    Case("job-unflushed", "unflushed", "history"),
]
# published twice where it was confirmed and its message not acknowledged; the good job beside it is written once
UNRECORDED = [
    Case("refused-unwritten", "unwritten", "unrecorded", 1),
    Case("refused-written", "written", "unrecorded", 2),
    Case("refused-confirmed", "confirmed", "unrecorded", 2),
    Case("refused-unflushed", "unflushed", "history", 2),
    Case("bytes-unwritten", "unwritten", "unrecorded", 1),
    Case("bytes-written", "written", "unrecorded", 2),
    Case("bytes-confirmed", "confirmed", "unrecorded", 2),
    Case("bytes-unflushed", "unflushed", "history", 2),
]
# a copy of a step in its work queue is dropped by the worker that settled the other
STRAYS = [
    Case("stray-unwritten", "unwritten", "work", 1),
    Case("stray-written", "written", "work", 2),
    Case("stray-confirmed", "confirmed", "work", 2),
    Case("stray-unflushed", "unflushed", "stray", 2),
    Case("gone-split", "written", "parked", 2),
    Case("gone-written", "written", "history", 2),
    Case("gone-confirmed", "confirmed", "parked", 2),
    Case("gone-unflushed", "unflushed", "stray", 2),
    Case("bytes-confirmed", "confirmed", "parked", 2),
]


def accepted(job: str, accepted_at: int = NOW, value: Any = 1) -> Accepted:
    """A job's acceptance."""
    return Accepted(**_about(job, accepted_at), key_id="key", payload={"value": value})


def ended(job: str, accepted_at: int = NOW) -> Ended:
    """The success of its first attempt."""
    return Ended(
        **_about(job, accepted_at),
        n=1,
        execution=f"execution of {job}",
        started_at=accepted_at + 5,
        finished_at=accepted_at + 9,
        worker="worker",
        outcome=Outcome.SUCCEEDED,
        state=JobState.SUCCEEDED,
    )


def _about(job: str, accepted_at: int) -> dict[str, Any]:
    about = {"app": "shop", "id": job, "type": "seam.recorded", "lane": "default", "priority": "normal"}
    return about | {"accepted_at": accepted_at}


def publish_events(installation: Installation, *events: Event) -> None:
    """As one message."""
    (body,) = encode_batches(events)
    installation.publish(installation.names.history, body, exchange="")


def final(installation: Installation) -> int:
    """Documents with a final state."""
    return int(installation.db.jobs.count_documents({"state": {"$in": sorted(FINAL)}}))


async def die(installation: Installation, folder: Path, case: Case, source: str, service: str) -> None:
    """A service dies at its seam, and the message is back in its queue."""
    places = {"work": installation.names.work, "parked": installation.names.parked("default")}
    where = places.get(case.where) or (getattr(installation.names, case.where) if case.where else "")
    await stopped(installation, folder / case.name, Stop(case.at, where, (case.name,)), "run", service)
    await eventually(lambda: installation.depth(source), f"{case.name}: its message is back")


async def _record(cases: Sequence[Case], folder: Path, installation: Installation) -> dict[str, Any]:
    """Each case's recorder dies, and an ordinary one writes; the good jobs' documents and what is unrecorded."""
    names = installation.names
    for number, case in enumerate(cases):
        if case.name.startswith("bytes"):
            installation.publish(names.history, case.name.encode(), exchange="")
        elif case.name.startswith("refused"):
            refused = accepted(f"{case.name}-itself", value=TOO_LARGE)
            publish_events(installation, accepted(case.name), ended(case.name), refused)
        else:
            known = f"{case.name}-known"
            publish_events(installation, accepted(known))
            async with run_services(Recorder(installation.settings)):
                await eventually(lambda known=known: installation.job(known), "a job is known")  # type: ignore[misc]
            publish_events(installation, accepted(case.name), ended(case.name), ended(known))
        await die(installation, folder, case, names.history, "recorder")
        await statistics_match(installation)  # of what it had written; the minute is put together before the rest is
        copies = sum(c.copies for c in cases[: number + 1])
        async with run_services(Recorder(installation.settings)):
            await eventually(lambda: not installation.depth(names.history), "it is taken")
            await eventually(
                lambda copies=copies: installation.depth(names.unrecorded) == copies,  # type: ignore[misc]
                f"{case.name}: {copies} unrecorded",
            )
        assert left(installation) == {}, f"{case.name}: it was acknowledged"
    await statistics_match(installation)
    unrecorded = [body for _, body in installation.drain(names.unrecorded)]
    return {"documents": list(installation.db.jobs.find()), "unrecorded": unrecorded}


async def test_the_recorder_dies(tmp_path: Path) -> None:
    """Each document is there, written once for each message that was told, and statistics say the same."""

    def play() -> dict[str, Any]:
        with installed() as installation:
            return asyncio.run(_record(RECORDED, tmp_path, installation))

    documents = {doc["id"]: doc for doc in (await asyncio.to_thread(play))["documents"]}
    assert documents.keys() == {f"{c.name}{suffix}" for c in RECORDED for suffix in ("", "-known")}
    for name, document in documents.items():
        assert document["state"] == "succeeded"
        assert [a["outcome"] for a in document["attempts"]] == ["succeeded"]
        assert document["rev"] == name.endswith("-known"), "what was written already is not written again"


async def test_the_recorder_dies_with_what_cannot_be_recorded(tmp_path: Path) -> None:
    """It is in `unrecorded`, at most twice, and what came in the same message is recorded."""

    def play() -> dict[str, Any]:
        with installed() as installation:
            return asyncio.run(_record(UNRECORDED, tmp_path, installation))

    found = await asyncio.to_thread(play)
    refused = {c.name for c in UNRECORDED if c.name.startswith("refused")}
    assert {doc["id"]: doc["state"] for doc in found["documents"]} == dict.fromkeys(refused, "succeeded")
    for case in UNRECORDED:
        assert sum(case.name.encode() in body for body in found["unrecorded"]) == case.copies


@pytest.mark.parametrize("at", ["recorded", "unflushed"])
async def test_the_recorder_dies_before_or_after_its_answer_to_a_mark(tmp_path: Path, at: str) -> None:
    """Whether the answer got out or not, who asks hears the truth; mark and events are taken, and written once."""

    async def ask(installation: Installation) -> None:
        history = installation.names.history
        peers = Peers(installation.amqp_url, "test", installation.names.peers, lambda _: None)
        await peers.start()
        try:
            await eventually(lambda: peers.ready, "it can ask")
            publish_events(installation, accepted("told"), ended("told"))
            asking = asyncio.create_task(peers.ask_consumer(history, MARK, 300, 1.0))
            await eventually(lambda: installation.depth(history) > 1, "a mark is behind the events")
            stop = Stop(at, history, (MARK.decode(),) if at == "unflushed" else ())
            await stopped(installation, tmp_path, stop, "run", "recorder")
            await eventually(lambda: installation.depth(history) > 1, "they are back")
            assert final(installation) == 1, "what may have been said is true"
            assert at == "unflushed" or not asking.done()
            async with run_services(Recorder(installation.settings)):
                assert await asyncio.wait_for(asking, 60)
                await eventually(lambda: not installation.depth(history), "all are taken")
            assert left(installation) == {}
            assert [doc["rev"] for doc in installation.db.jobs.find()] == [0]
        finally:
            await peers.close()

    def play() -> None:
        with installed() as installation:
            asyncio.run(ask(installation))

    await asyncio.to_thread(play)


def _stray(case: Case) -> bytes:
    if case.name.startswith("bytes"):
        return case.name.encode()
    lane = "gone" if case.name.startswith("gone") else "default"
    return WorkMessage(**_about(case.name, NOW) | {"lane": lane}, payload={}).encode()


async def test_the_scheduler_dies_with_strays(tmp_path: Path) -> None:
    """Each is in its work queue or parked, at most twice; a lane that is gone is one final state."""

    async def play(installation: Installation) -> list[bytes]:
        names = installation.names
        outcome = (names.work_queue("default", "normal"), names.parked("default"))
        for number, case in enumerate(STRAYS):
            installation.publish(names.stray, _stray(case), exchange="")
            await die(installation, tmp_path, case, names.stray, "scheduler")
            copies = sum(c.copies for c in STRAYS[: number + 1])
            async with run_services(Scheduler(installation.settings)):
                await eventually(
                    lambda copies=copies: sum(map(installation.depth, outcome)) == copies,  # type: ignore[misc]
                    f"{case.name}: {copies} brought back",
                )
            assert not installation.depth(names.stray)
        async with run_services(Recorder(installation.settings)):
            gone = sum(case.name.startswith("gone") for case in STRAYS)
            await eventually(lambda: final(installation) == gone, "each job whose lane is gone is final")
        await statistics_match(installation)
        documents = {doc["id"]: doc["state"] for doc in installation.db.jobs.find()}
        assert documents == {case.name: "failed" for case in STRAYS if case.name.startswith("gone")}
        return [body for queue in outcome for _, body in installation.drain(queue)]

    def in_thread() -> list[bytes]:
        with installed() as installation:
            return asyncio.run(play(installation))

    bodies = await asyncio.to_thread(in_thread)
    for case in STRAYS:
        assert sum(case.name.encode() in body for body in bodies) == case.copies


@pytest.fixture
def two_minutes(tmp_path: Path) -> Any:
    """An installation with jobs of two minutes that have been quiet for long."""
    with installed(DISPATCHER_SCHEDULER__ROLLUP_INTERVAL="0.2") as installation:

        async def record() -> None:
            for at in (NOW, NOW + MINUTE):
                publish_events(installation, accepted(f"job-{at}", at), ended(f"job-{at}", at))
            async with run_services(Recorder(installation.settings)):
                await eventually(lambda: final(installation) == 2, "both are recorded")

        asyncio.run(record())
        quiet(installation)
        yield installation


def quiet(installation: Installation) -> None:
    """As if nothing had been written for an hour."""
    long_ago = [{"$set": {"dirty_at": {"$subtract": ["$$NOW", 3_600_000]}}}]
    installation.db.stats.update_many({"dirty_at": {"$ne": None}}, long_ago)


def dirty(installation: Installation) -> int:
    """Minutes that are not put together."""
    return int(installation.db.stats.count_documents({"dirty_at": {"$ne": None}}))


@pytest.mark.parametrize("nth", [1, 2])
def test_the_scheduler_dies_between_count_and_store(two_minutes: Installation, tmp_path: Path, nth: int) -> None:
    """Of the first minute or of the second: what was not stored is counted anew."""

    async def play() -> None:
        stop = Stop("counted", nth=nth)
        env = {"DISPATCHER_SCHEDULER__ROLLUP_INTERVAL": "0.2"}
        await stopped(two_minutes, tmp_path / "scheduler", stop, "run", "scheduler", env=env)
        assert dirty(two_minutes) == 3 - nth
        async with run_services(Scheduler(two_minutes.settings)):
            await eventually(lambda: not dirty(two_minutes), "both minutes are put together")
        await statistics_match(two_minutes)

    asyncio.run(play())


def _meanwhile(
    patch: pytest.MonkeyPatch, owner: type, method: str, *, after: bool, action: Callable[[], Awaitable[None]]
) -> None:
    """Do something just before, or after, the first call of a method in this process."""
    call, todo = getattr(owner, method), [action]

    @functools.wraps(call)
    async def called(*args: Any, **named: Any) -> Any:
        now = todo.pop() if todo else None
        if now and not after:
            await now()
        result = await call(*args, **named)
        if now and after:
            await now()
        return result

    patch.setattr(owner, method, called)


def test_a_write_between_count_and_store_is_counted(two_minutes: Installation) -> None:
    """The minute was marked again meanwhile: what was counted before is not taken for the whole."""

    async def record() -> None:
        publish_events(two_minutes, accepted("late"), ended("late"))
        async with run_services(Recorder(two_minutes.settings)):
            await eventually(lambda: final(two_minutes) == 3, "it is recorded")

    async def play() -> None:
        with pytest.MonkeyPatch.context() as patch:
            _meanwhile(patch, StatisticsStore, "_count", after=True, action=record)
            async with run_services(Scheduler(two_minutes.settings)):
                await eventually(lambda: final(two_minutes) == 3 and dirty(two_minutes) == 1, "one minute stays marked")
        await statistics_match(two_minutes)

    asyncio.run(play())


def test_a_recorder_that_stood_still_after_its_mark(two_minutes: Installation, monkeypatch: pytest.MonkeyPatch) -> None:
    """The minute is put together before it writes, as if nobody would any more; what it writes is counted still."""

    async def roll_up() -> None:
        quiet(two_minutes)
        now_ms = clock.now_ms
        monkeypatch.setattr(clock, "now_ms", lambda: now_ms() + 3_600_000)
        async with run_services(Scheduler(two_minutes.settings)):
            await eventually(lambda: not dirty(two_minutes), "both minutes are put together")

    async def play() -> None:
        publish_events(two_minutes, accepted("late"), ended("late"))
        _meanwhile(monkeypatch, JobStore, "record", after=False, action=roll_up)
        async with run_services(Recorder(two_minutes.settings)):
            await eventually(lambda: final(two_minutes) == 3, "it is recorded")
            await eventually(lambda: not left(two_minutes), "and acknowledged")
        await statistics_match(two_minutes)

    asyncio.run(play())
