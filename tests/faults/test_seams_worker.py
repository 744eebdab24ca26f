"""A worker dies at each of its seams; an ordinary one goes on, and the outcome is the right one.

What a worker publishes, and what it acknowledges then (each line is a set of cases below):

    Started of an execution                                    nothing yet
    Ended alone (success; a cancelled job is the same)         the step
    the next step into the ladder, then Ended (retry, snooze)  the step
    the step parked, then Ended (final failure)                the step
    the next step into the ladder, then Moved (no handler)     the step
    the step parked, then Moved (no handler, for too long)     the step
    the step to the suspects                                   the step
    bytes that are no step, parked                             them
    nothing (a step whose run is over)                         the step

It writes nothing to the database. What workers ask one another and answer is transient: who hears nothing runs the
step. What it gives back at an orderly stop needs no seam: the broker gives it to others
then or when the process dies.

Each case has a lane of its own, so that all of them can die beside one another. Each publishes the message that
carries the job on first, and when that is confirmed the event that tells of it; "split" is a death between the two.
"""

from __future__ import annotations

import asyncio
import json
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from dispatcher.core.lifecycle import FINAL
from dispatcher.services.intake import Intake
from dispatcher.services.recorder import Recorder
from tests.conftest import run_services
from tests.faults.aftermath import (
    HANDLERS,
    Stop,
    by_id,
    executed,
    history_matches,
    installed,
    left,
    outcomes,
    parked,
    settled,
    statistics_match,
    stopped,
)
from tests.faults.executions import LEDGER_VARIABLE
from tests.processes import ServiceProcess
from tests.support import Installation, eventually

pytestmark = [pytest.mark.faults, pytest.mark.timeout(600)]

#: Processes that run at once until they die.
AT_ONCE = 4
ENVIRONMENT = {"DISPATCHER_WORKER__NO_HANDLER_DELAY": "0.25", "DISPATCHER_WORKER__NO_HANDLER_LIMIT": "1"}

#: Delays are long enough for a worker to die before they are over.
JOBS: dict[str, tuple[str, dict[str, Any]]] = {
    "plain": ("chaos.plain", {"payload": {"ms": 300}}),
    "retry": ("chaos.flaky", {"payload": {"ms": 0, "failures": 1}, "retry": {"base": 1}}),
    "snooze": ("chaos.snooze", {"payload": {"ms": 0, "snoozes": 1, "seconds": 1}}),
    "fail": ("chaos.hopeless", {"payload": {"ms": 0}, "retry": {"max_attempts": 1}}),
    "nobody": ("chaos.nobody", {}),
}
SUCCEEDED, RETRIED = ["1.1 succeeded"], ["1.1 failed", "1.2 succeeded"]
SNOOZED, FAILED = ["1.1 snoozed", "1.1 succeeded"], ["1.1 failed"]


@dataclass(frozen=True)
class Case:
    """A job, where its worker dies, and what must come of it. The name is the job's id, and its lane.

    Seams are (moment, where the message goes or came from, what else its body holds). ``recorded`` is the state that
    history has before an ordinary worker starts, None where it makes no difference.
    """

    name: str
    seams: tuple[tuple[str, str, str], ...]
    #: Executions by attempt and snoozes before it.
    runs: dict[tuple[int, int], int]
    #: What history says of them, without lost ones; then how many of those it has (None: as it happens).
    attempts: list[str] = field(default_factory=list)
    lost: int | None = None
    state: str = "succeeded"
    parked: int = 0
    recorded: str | None = None
    #: How often the step came back from a worker before.
    bounced: int = 0
    #: Whether the first execution may be the only one of its step, of which history does not hear then.
    spared: bool = False

    @property
    def job(self) -> tuple[str, dict[str, Any]]:
        """Type and fields."""
        job_type, fields = JOBS[self.name.partition("-")[0]]
        return job_type, {**fields, "id": self.name, "lane": self.name}


def case(name: str, at: str, where: str, runs: Any, *rest: Any, holding: str = "", **fields: Any) -> Case:
    """One seam's case."""
    return Case(name, ((at, where, holding),), runs, *rest, **fields)


#: The seams at which history hears of the end of an attempt.
_TOLD = (("written", "history", "ended"), ("confirmed", "history", "ended"), ("unflushed", "work", ""))
# an execution of which nothing is confirmed is repeated; one whose end history has is not
_PLAIN = [
    case("plain-start-unwritten", "unwritten", "history", {(1, 0): 2}, SUCCEEDED, 0, holding="started"),
    case("plain-start-written", "written", "history", {(1, 0): 2}, SUCCEEDED, 1, holding="started"),
    case("plain-unwritten", "unwritten", "history", {(1, 0): 2}, SUCCEEDED, 1, holding="ended"),
    *(
        case(f"plain-{at}", at, where, {(1, 0): 1}, SUCCEEDED, 0, holding=holding, recorded="succeeded")
        for at, where, holding in _TOLD
    ),
]
# without its event nobody knows that the step went on: it is repeated, unless what follows from it ends its run first
_RETRY = [
    case("retry-unwritten", "unwritten", "delays", {(1, 0): 2, (2, 0): 1}, RETRIED),
    case("retry-written", "written", "delays", {(1, 0): 2, (2, 0): 1}, RETRIED, spared=True),
    case("retry-split", "confirmed", "delays", {(1, 0): 2, (2, 0): 1}, RETRIED, spared=True),
    *(
        case(f"retry-told-{at}", at, where, {(1, 0): 1, (2, 0): 1}, RETRIED, holding=holding, recorded="retrying")
        for at, where, holding in _TOLD
    ),
]
_SNOOZE = [
    case("snooze-unwritten", "unwritten", "delays", {(1, 0): 2, (1, 1): 1}, SNOOZED),
    case("snooze-written", "written", "delays", {(1, 0): 2, (1, 1): 1}, SNOOZED, spared=True),
    case("snooze-split", "confirmed", "delays", {(1, 0): 2, (1, 1): 1}, SNOOZED, spared=True),
    *(
        case(f"snooze-told-{at}", at, where, {(1, 0): 1, (1, 1): 1}, SNOOZED, holding=holding, recorded="scheduled")
        for at, where, holding in _TOLD
    ),
]
# parked twice where only the event is missing: the second copy goes when the job is replayed
_FAIL = [
    case("fail-unwritten", "unwritten", "parked", {(1, 0): 2}, FAILED, state="failed", parked=1),
    case("fail-written", "written", "parked", {(1, 0): 2}, FAILED, state="failed", parked=2),
    case("fail-split", "confirmed", "parked", {(1, 0): 2}, FAILED, state="failed", parked=2),
    *(
        case(
            f"fail-told-{at}", at, where, {(1, 0): 1}, FAILED,
            state="failed", parked=1, holding=holding, recorded="failed",
        )
        for at, where, holding in _TOLD
    ),
]  # fmt: skip
_NOBODY = [
    case("nobody-unwritten", "unwritten", "delays", {}, state="failed", parked=1),
    case("nobody-written", "written", "delays", {}, state="failed", parked=1),
    case("nobody-split", "confirmed", "delays", {}, state="failed", parked=1),
    case("nobody-told", "confirmed", "history", {}, state="failed", parked=1, holding="moved", recorded="scheduled"),
    case("nobody-unflushed", "unflushed", "work", {}, state="failed", parked=1, recorded="scheduled"),
    case("nobody-end-written", "written", "parked", {}, state="failed", parked=2),
    case("nobody-end-split", "confirmed", "parked", {}, state="failed", parked=2),
]
_SUSPECT = [
    case("plain-suspect-unwritten", "unwritten", "suspect", {(1, 0): 1}, SUCCEEDED, 0, bounced=3),
    case("plain-suspect-written", "written", "suspect", {(1, 0): 1}, SUCCEEDED, 0, bounced=3),
    case("plain-suspect-confirmed", "confirmed", "suspect", {(1, 0): 1}, SUCCEEDED, 0, bounced=3),
    case("plain-suspect-unflushed", "unflushed", "work", {(1, 0): 1}, SUCCEEDED, 0, bounced=3),
]
_STALE = [
    Case(
        "plain-stale-unflushed",
        (("confirmed", "history", "ended"), ("unflushed", "work", "")),
        {(1, 0): 1},
        SUCCEEDED,
        0,
        recorded="succeeded",
    )
]
CASES = [*_PLAIN, *_RETRY, *_SNOOZE, *_FAIL, *_NOBODY, *_SUSPECT, *_STALE]
#: Bytes that are no step, and how often they are parked.
NOT_OURS = {
    "bytes-unwritten": (("unwritten", "parked", ""), 1),
    "bytes-written": (("written", "parked", ""), 2),
    "bytes-confirmed": (("confirmed", "parked", ""), 2),
    "bytes-unflushed": (("unflushed", "work", ""), 2),
}


@dataclass
class Seen:
    """What the one play of all cases left."""

    ledger: Path
    documents: dict[str, dict[str, Any]]
    parked: dict[str, list[str]]
    bytes_parked: dict[str, int]
    left: dict[str, int]


@pytest.fixture(scope="module")
def seen(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Seen]:
    """Every worker dies at its seam, an ordinary one takes over all lanes, and everything is looked at."""
    folder = tmp_path_factory.mktemp("worker")
    with installed([*(c.name for c in CASES), *NOT_OURS]) as installation:
        yield asyncio.run(_play(installation, folder))


async def _play(installation: Installation, folder: Path) -> Seen:
    settings, ledger = installation.settings, folder / "executions"
    env = ENVIRONMENT | {LEDGER_VARIABLE: str(ledger)}
    key = await installation.create_key()
    async with run_services(Intake(settings), Recorder(settings)):
        await _publish(installation, key)
        few = asyncio.Semaphore(AT_ONCE)
        async with asyncio.TaskGroup() as group:
            for c in CASES:
                group.create_task(_die(installation, folder / c.name, c.name, c.seams, c.recorded, env, few))
            for lane, (seam, _) in NOT_OURS.items():
                group.create_task(_die(installation, folder / lane, lane, (seam,), None, env, few))
        async with ServiceProcess(installation, "worker", HANDLERS, env=env) as worker:
            await settled(installation, "workers", worker, jobs=[c.name for c in CASES])
        await statistics_match(installation)
    return Seen(
        ledger,
        by_id(installation.db.jobs),
        {c.name: parked(installation, c.name) for c in CASES},
        {lane: len(installation.drain(installation.names.parked(lane))) for lane in NOT_OURS},
        left(installation),
    )


async def _publish(installation: Installation, key: str) -> None:
    installation.publish_many([c.job for c in CASES], key)
    names = installation.names
    installation.publish_many([(names.work_queue(lane, "normal"), lane.encode()) for lane in NOT_OURS], exchange="")
    queues = [names.work_queue(lane, "normal") for lane in (*(c.name for c in CASES), *NOT_OURS)]
    await eventually(lambda: all(map(installation.depth, queues)), "every step is in its queue", every=0.2)
    with installation.channel() as channel:
        for c in CASES:
            for _ in range(c.bounced):
                method, _, _ = channel.basic_get(names.work_queue(c.name, "normal"))
                channel.basic_nack(method.delivery_tag, requeue=True)


async def _die(
    installation: Installation,
    folder: Path,
    lane: str,
    seams: tuple[tuple[str, str, str], ...],
    recorded: str | None,
    env: dict[str, str],
    few: asyncio.Semaphore,
) -> None:
    names = installation.names
    places = {
        "history": names.history,
        "delays": names.delays,
        "parked": names.parked(lane),
        "suspect": names.suspect(lane),
        "work": names.work_queue(lane, "normal"),
    }
    env = env | {"DISPATCHER_WORKER__LANES": json.dumps([lane])}
    for number, (at, where, holding) in enumerate(seams):
        stop = Stop(at, places[where], (lane, f'"kind":"{holding}"') if holding else (lane,))
        async with few:
            await stopped(installation, folder / str(number), stop, "worker", HANDLERS, env=env)
        if recorded is not None:
            await eventually(lambda: (installation.job(lane) or {}).get("state") == recorded, f"{lane} is {recorded}")


@pytest.mark.parametrize("expected", CASES, ids=lambda c: c.name)
def test_a_worker_dies(seen: Seen, expected: Case) -> None:
    """One final state, the right one; as many executions as the seam allows, and history knows those it was told of."""
    document = seen.documents[expected.name]
    runs = Counter((e.step[2], e.step[3]) for e in executed(seen.ledger, expected.name))
    spared = expected.spared and runs[1, 0] == 1
    assert runs == expected.runs | ({(1, 0): 1} if spared else {})
    assert (document["state"], document["run"]) == (expected.state, 1)
    told = outcomes(document)
    # a repeated step may start before or after what followed from its first execution
    assert sorted(entry for entry in told if not entry.endswith("lost")) == sorted(expected.attempts[spared:])
    if expected.lost is not None:
        assert len(told) - len(expected.attempts) == expected.lost
    history_matches(document, seen.ledger)
    assert seen.parked[expected.name] == [expected.name] * expected.parked


@pytest.mark.parametrize("lane", NOT_OURS)
def test_a_worker_dies_on_bytes(seen: Seen, lane: str) -> None:
    """They are parked; twice where the first time was confirmed and they were not acknowledged."""
    assert seen.bytes_parked[lane] == NOT_OURS[lane][1]


def test_nothing_else_is_left(seen: Seen) -> None:
    """No message in any queue but the parked ones, and no document but the jobs'."""
    assert seen.left == {}
    assert seen.documents.keys() == {c.name for c in CASES}
    assert FINAL.issuperset(document["state"] for document in seen.documents.values())
