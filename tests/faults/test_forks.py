"""A run that forks: a step is executed although what follows from it is on its way. One final state, the right one.

The right one (docs/states.md): in a run the first final state that history records stands, and a later run is newer
than any state of the one before it. So

- a retry that is confirmed while its step comes again: whichever chain ends first says how the run ended;
- a result in history and its step comes again: it is dropped, it is not run;
- a result that history does not have yet and its step comes again: it is run once more, and what was told first stands;
- a replay of a job that has since succeeded: refused; a copy of the new run's first step: it is run once more at most,
  and whatever comes of it, the success stands.

Two workers run here: one remembers what it settled, and would hide a part of this. The same with one worker is in
test_seams_worker.
"""

from __future__ import annotations

import asyncio
import json
from collections import Counter
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from dispatcher.core.outcome import new_run
from dispatcher.services.intake import Intake
from dispatcher.services.operations import Operations
from dispatcher.services.recorder import Recorder
from schemas import WorkMessage
from tests.conftest import run_services
from tests.faults.aftermath import (
    HANDLERS,
    Stop,
    by_id,
    executed,
    history_matches,
    installed,
    outcomes,
    parked,
    settled,
    statistics_match,
    stopped,
)
from tests.faults.executions import LEDGER_VARIABLE
from tests.processes import ServiceProcess, invoke, invoked
from tests.support import Installation, eventually

pytestmark = [pytest.mark.faults, pytest.mark.timeout(600)]

FLAKY = {"payload": {"ms": 20, "failures": 1}, "retry": {"base": 1}}
ONCE = {"payload": {"ms": 20}, "retry": {"base": 1}}
PLAIN = {"payload": {"ms": 20}}
LAST = {"payload": {"ms": 20}, "retry": {"max_attempts": 1}}


@dataclass(frozen=True)
class Case:
    """A job whose worker dies; the name is its id and its lane. ``most``: executions by attempt, at most."""

    name: str
    type: str
    fields: dict[str, Any]
    at: str
    where: str
    most: dict[int, int]
    state: str = "succeeded"
    recorded: str | None = None
    parked: int = 0


CASES = [
    # attempt 1 comes again while nobody knows that attempt 2 is on its way
    Case("retry-split", "chaos.flaky", FLAKY, "confirmed", "delays", {1: 2, 2: 2}),
    # attempt 1 comes again, and history knows
    Case("retry-told", "chaos.flaky", FLAKY, "confirmed", "history", {1: 1, 2: 1}, recorded="retrying"),
    Case("retry-unflushed", "chaos.flaky", FLAKY, "unflushed", "work", {1: 1, 2: 1}, recorded="retrying"),
    # attempt 1 would succeed when it comes again, beside an attempt 2 that exists because it had failed
    Case("other-end-split", "chaos.once", ONCE, "confirmed", "delays", {1: 2, 2: 1}),
    Case("other-end-told", "chaos.once", ONCE, "confirmed", "history", {1: 1, 2: 1}, recorded="retrying"),
    # parked, history was not told, and the step succeeds when it comes again: a message of no dead job is left
    Case("parked-split", "chaos.once", LAST, "confirmed", "parked", {1: 2}, parked=1),
    # the end is in history: dropped
    Case("parked-told", "chaos.once", LAST, "confirmed", "history", {1: 1}, "failed", "failed", 1),
    Case("result-told", "chaos.plain", PLAIN, "confirmed", "history", {1: 1}, recorded="succeeded"),
    Case("result-unflushed", "chaos.plain", PLAIN, "unflushed", "work", {1: 1}, recorded="succeeded"),
]


@asynccontextmanager
async def workers(installation: Installation, ledger: Path) -> AsyncIterator[list[ServiceProcess]]:
    """Two ordinary ones."""
    env = {LEDGER_VARIABLE: str(ledger)}
    async with (
        ServiceProcess(installation, "worker", HANDLERS, env=env) as one,
        ServiceProcess(installation, "worker", HANDLERS, env=env) as other,
    ):
        await asyncio.gather(one.ready(), other.ready())
        yield [one, other]


async def die(
    installation: Installation, folder: Path, lane: str, at: str, where: str, recorded: str | None = None
) -> None:
    """A worker of the lane dies on its job, whose state history has then where it is given."""
    names = installation.names
    places = {"parked": names.parked(lane), "work": names.work_queue(lane, "normal")}
    stop = Stop(at, places.get(where) or getattr(names, where), (lane,) if where != "history" else (lane, "ended"))
    env = {LEDGER_VARIABLE: str(folder / "executions"), "DISPATCHER_WORKER__LANES": json.dumps([lane])}
    await stopped(installation, folder / lane, stop, "worker", HANDLERS, env=env)
    if recorded is not None:
        await eventually(lambda: (installation.job(lane) or {}).get("state") == recorded, f"{lane} is {recorded}")


@dataclass
class Seen:
    """What the one play of all cases left."""

    ledger: Path
    before: dict[str, dict[str, Any]]
    documents: dict[str, dict[str, Any]]
    parked: dict[str, list[str]]


@pytest.fixture(scope="module")
def seen(tmp_path_factory: pytest.TempPathFactory) -> Seen:
    """Each case's worker dies in its lane, then two ordinary ones serve all lanes."""
    folder = tmp_path_factory.mktemp("forks")
    with installed([case.name for case in CASES]) as installation:
        return asyncio.run(_play(installation, folder))


async def _play(installation: Installation, folder: Path) -> Seen:
    key, settings, ledger = await installation.create_key(), installation.settings, folder / "executions"
    async with run_services(Intake(settings), Recorder(settings)):
        messages = [(case.type, {**case.fields, "id": case.name, "lane": case.name}) for case in CASES]
        installation.publish_many(messages, key)
        few = asyncio.Semaphore(4)

        async def one(case: Case) -> None:
            async with few:
                await die(installation, folder, case.name, case.at, case.where, case.recorded)

        await asyncio.gather(*map(one, CASES))
        before = by_id(installation.db.jobs)
        async with workers(installation, ledger) as both:
            await settled(installation, "forks", *both, jobs=[case.name for case in CASES])
        await statistics_match(installation)
    documents = by_id(installation.db.jobs)
    return Seen(ledger, before, documents, {case.name: parked(installation, case.name) for case in CASES})


@pytest.mark.parametrize("case", CASES, ids=lambda c: c.name)
def test_a_fork_ends_in_one_state(seen: Seen, case: Case) -> None:
    """As many executions as there are chains, at most; a final state that was recorded before is untouched."""
    document, before = seen.documents[case.name], seen.before[case.name]
    runs = Counter(e.step[2] for e in executed(seen.ledger, case.name))
    assert runs.keys() <= case.most.keys()
    assert all(1 <= runs[n] <= most for n, most in case.most.items() if n == 1)
    assert all(runs[n] <= most for n, most in case.most.items())
    assert (document["state"], document["run"]) == (case.state, 1)
    if case.recorded == case.state:
        assert document == before
    history_matches(document, seen.ledger)
    assert seen.parked[case.name] == [case.name] * case.parked


def test_a_job_that_succeeded_at_last_is_not_dead(seen: Seen) -> None:
    """Its first chain parked it and was not heard of; the attempt that failed is not shown as its end."""
    document = seen.documents["parked-split"]
    assert outcomes(document)[-1] == "1.1 succeeded"
    assert "error" not in document


@pytest.fixture
def installation() -> Iterator[Installation]:
    """An installation of one test."""
    with installed() as one:
        yield one


@pytest.fixture
def ledger(tmp_path: Path) -> Path:
    """The handlers' own file."""
    return tmp_path / "executions"


def runs_of(ledger: Path, job: str) -> Counter[int]:
    """Executions by run."""
    return Counter(execution.step[1] for execution in executed(ledger, job))


def test_what_history_was_told_first_stands(installation: Installation, tmp_path: Path) -> None:
    """The result is confirmed, no recorder runs, the step comes again: executed once more, and the first end stands."""
    ledger = tmp_path / "executions"

    async def play() -> None:
        key, settings = await installation.create_key(), installation.settings
        async with run_services(Intake(settings)):
            installation.publish("chaos.plain", {"id": "default", **PLAIN}, key)
            await die(installation, tmp_path, "default", "confirmed", "history")
            async with workers(installation, ledger) as both:
                await eventually(lambda: len(executed(ledger, "default")) == 2, "it is executed again")
                await eventually(lambda: executed(ledger, "default")[1].ended, "and ends again")
                async with run_services(Recorder(settings)):
                    await settled(installation, "results", *both, jobs=["default"])
                    await statistics_match(installation)

    asyncio.run(play())
    document = installation.job("default") or {}
    first, second = document["attempts"]
    assert outcomes(document) == ["1.1 succeeded"] * 2
    assert first["started_at"] < second["started_at"]
    assert document["finished_at"] == first["finished_at"] < second["finished_at"]
    history_matches(document, ledger)


@asynccontextmanager
async def dead_job(installation: Installation, ledger: Path) -> AsyncIterator[bytes]:
    """Two workers, and the job ``dead``, which failed in its first run; its parked message, which is taken out."""
    key, settings = await installation.create_key(), installation.settings
    async with run_services(Intake(settings), Recorder(settings)), workers(installation, ledger) as both:
        installation.publish("chaos.rerun", {"id": "dead", "payload": {"ms": 20}}, key)
        await installation.finished("dead")
        await eventually(lambda: installation.depth(installation.names.parked("default")), "it is parked")
        ((_, body),) = installation.drain(installation.names.parked("default"))
        yield body
        await settled(installation, "replays", *both)
        await statistics_match(installation)
        history_matches(installation.job("dead") or {}, ledger)


def park(installation: Installation, *bodies: bytes) -> None:
    """Put messages among the parked."""
    installation.publish_many([(installation.names.parked("default"), body) for body in bodies], exchange="")


async def second_run(installation: Installation) -> dict[str, Any]:
    """The job's document once its second run has succeeded."""

    def look() -> dict[str, Any] | None:
        document = installation.job("dead") or {}
        return document if (document.get("run"), document.get("state")) == (2, "succeeded") else None

    found: dict[str, Any] = await eventually(look, "the second run has succeeded")
    return found


def test_a_message_parked_twice_is_one_run(installation: Installation, ledger: Path) -> None:
    """As a worker leaves it that died after it had parked the job: a replay starts one run and takes both."""

    async def play() -> None:
        async with dead_job(installation, ledger) as body:
            park(installation, body, body)
            await invoked(installation, "dead", "replay", "dead")
            await second_run(installation)

    asyncio.run(play())
    assert runs_of(ledger, "dead") == {1: 1, 2: 1}
    assert parked(installation) == []


def test_a_job_that_has_since_succeeded_is_not_replayed(installation: Installation, ledger: Path) -> None:
    """Its message is still parked, as a replay leaves it that died before its acknowledgement."""

    async def play() -> None:
        async with dead_job(installation, ledger) as body:
            park(installation, body)
            await invoked(installation, "dead", "replay", "dead")
            succeeded = await second_run(installation)
            park(installation, body)
            refused = await asyncio.to_thread(invoke, installation, "dead", "replay", "dead")
            assert (refused.code, "not dead" in refused.err) == (1, True)
            assert installation.job("dead") == succeeded

    asyncio.run(play())
    assert runs_of(ledger, "dead") == {1: 1, 2: 1}
    assert parked(installation) == ["dead"]


def test_a_retry_and_a_replay_at_once_are_one_run(installation: Installation, ledger: Path) -> None:
    """Both saw the job in its first run: one second run, with one end, executed at most once by each worker."""

    async def play() -> None:
        operations = Operations(installation.settings)
        async with dead_job(installation, ledger) as body:
            park(installation, body)
            await operations.publisher.start()
            document = await operations.find("dead")
            assert await operations.retry(document) == 2
            assert await operations.replay(document) == 2
            await second_run(installation)
            await operations.publisher.close()
        operations.close()

    asyncio.run(play())
    document = installation.job("dead") or {}
    assert (document["run"], document["state"]) == (2, "succeeded")
    assert runs_of(ledger, "dead") in ({1: 1, 2: 1}, {1: 1, 2: 2})


def test_a_copy_of_a_run_that_has_succeeded_changes_nothing(installation: Installation, ledger: Path) -> None:
    """The new run's first step comes again after its success, and fails: the success stands, and nothing follows."""
    succeeded: dict[str, Any] = {}

    async def play() -> None:
        async with dead_job(installation, ledger) as body:
            park(installation, body)
            await invoked(installation, "dead", "replay", "dead")
            succeeded.update(await second_run(installation))
            copy = new_run(WorkMessage.decode(body)).encode()
            installation.publish("default.normal", copy, exchange=installation.names.work)

    asyncio.run(play())
    document, runs = installation.job("dead") or {}, runs_of(ledger, "dead")
    for name in ("state", "run", "finished_at", "result"):
        assert document[name] == succeeded[name]
    # the worker that settled the step drops the copy, the other one executes it
    assert runs in ({1: 1, 2: 1}, {1: 1, 2: 2})
    assert outcomes(document) == ["1.1 failed", "2.1 succeeded", "2.1 failed"][: sum(runs.values())]
