"""A job that kills its worker every time takes no other with it; a worker that is killed again and again harms none.

The same for a message that kills intake.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import make_settings
from tests.faults import deadly
from tests.faults.executions import LEDGER_VARIABLE, read_executions
from tests.faults.fleet import HANDLERS, Fleet
from tests.support import Installation, eventually

pytestmark = [pytest.mark.faults, pytest.mark.timeout(600)]

MEMBERS = ("scheduler-1", "recorder-1", "intake-1", "worker-1")


@asynccontextmanager
async def running(
    folder: Path, program: str = "dispatcher.cli.main", handlers: str = HANDLERS
) -> AsyncIterator[tuple[Installation, Fleet, str]]:
    """An installation of its own with one intake, one worker that holds up to 500 jobs a queue, and a key."""
    installation = Installation(make_settings())
    await asyncio.to_thread(installation.apply)
    environment = installation.environment() | {
        LEDGER_VARIABLE: str(folder / "executions"),
        "DISPATCHER_WORKER__READ_AHEAD": "400",
        "DISPATCHER_INTAKE__PREFETCH": "600",
    }
    key = await installation.create_key()
    async with Fleet(environment, folder, MEMBERS, handlers, program) as fleet:
        yield installation, fleet, key
    await asyncio.to_thread(installation.remove)


def good(count: int, ms: int) -> list[tuple[str, dict[str, Any]]]:
    """Jobs of so many milliseconds that do nothing wrong."""
    return [("chaos.plain", {"id": f"good-{index}", "payload": {"ms": ms}}) for index in range(count)]


async def all_succeeded(installation: Installation, count: int) -> list[dict[str, Any]]:
    """Wait for the good jobs' documents, as long as there is progress; none has spent more than one attempt."""
    done: dict[str, Any] = {"type": "chaos.plain", "state": "succeeded"}
    known = 0
    while known < count:

        def more(known: int = known) -> int:
            found = int(installation.db.jobs.count_documents(done))
            return found if found > known else 0

        known = await eventually(more, f"more than {known} of {count} jobs succeeded", every=0.2)
    documents = list(installation.db.jobs.find({"type": "chaos.plain"}))
    assert len(documents) == count
    attempts = [attempt for document in documents for attempt in document["attempts"]]
    assert {attempt["n"] for attempt in attempts} == {1}
    assert {attempt["outcome"] for attempt in attempts} <= {"succeeded", None}
    return documents


def parked(installation: Installation) -> list[str]:
    """Ids of the parked jobs."""
    return [json.loads(body)["id"] for _, body in installation.drain(installation.names.parked("default"))]


async def test_poison_beside_500_good_jobs(tmp_path: Path) -> None:
    """The worker dies three times; then the poison job is run alone, ends failed, and only it spent attempts."""
    async with running(tmp_path) as (installation, fleet, key):
        jobs = good(500, 20)
        poison = {"id": "poison", "payload": {}, "retry": {"max_attempts": 2, "base": 0.25}}
        jobs.insert(50, ("chaos.poison", poison))
        await asyncio.to_thread(installation.publish_many, jobs, key)
        document = await installation.finished("poison", timeout=120)
        await all_succeeded(installation, 500)
        assert document["state"] == "failed"
        assert [a["n"] for a in document["attempts"] if a["outcome"] == "crashed"] == [1, 2]
        assert document["error"]["type"] == "ChildCrashed"
        assert parked(installation) == ["poison"]
        assert [(death.member, death.code) for death in fleet.deaths] == [("worker-1", -9)] * 3


async def test_a_poison_member_of_a_batch_harms_no_other(tmp_path: Path) -> None:
    """The worker dies three times; then each member runs by itself, and one of them ends failed."""
    async with running(tmp_path, handlers="tests.faults.group_handlers:jobs") as (installation, fleet, key):
        group, names = {"key": "a", "max_size": 6, "max_wait": 60.0}, [f"member-{n}" for n in range(6)]
        jobs = [("poisoned", {"id": name, "group": group, "payload": {"kills": name == names[3]}}) for name in names]
        await asyncio.to_thread(installation.publish_many, jobs, key)
        for name in names:
            document = await installation.finished(name, timeout=120)
            outcomes = [(attempt["n"], attempt["outcome"]) for attempt in document["attempts"] if attempt["outcome"]]
            if name == names[3]:
                assert (document["state"], outcomes) == ("failed", [(1, "crashed"), (2, "crashed")])
            else:
                assert (document["state"], outcomes) == ("succeeded", [(1, "succeeded")])
        assert parked(installation) == [names[3]]
        assert [(death.member, death.code) for death in fleet.deaths] == [("worker-1", -9)] * 3


@pytest.mark.long
async def test_a_worker_full_of_good_jobs_is_killed(tmp_path: Path) -> None:
    """Each time as soon as it runs some; no job is parked or spends an attempt, and all succeed at last."""
    path, kills = tmp_path / "executions", 30
    async with running(tmp_path) as (installation, fleet, key):
        await asyncio.to_thread(installation.publish_many, good(200, 200), key)
        for kill in range(kills):
            before = len(read_executions(path))
            if before and await asyncio.to_thread(_all_final, installation, 200):
                pytest.fail(f"nothing was left to run after {kill} kills")
            await eventually(lambda before=before: len(read_executions(path)) > before, "the worker runs a job")  # type: ignore[misc]
            await asyncio.to_thread(fleet.kill, "worker-1")
            fleet.start("worker-1")
        await all_succeeded(installation, 200)
        assert parked(installation) == []
        assert fleet.killed()["worker"] == kills


def _all_final(installation: Installation, count: int) -> bool:
    return bool(installation.db.jobs.count_documents({"state": "succeeded"}) >= count)


@pytest.mark.parametrize(
    "marker", [pytest.param(deadly.PARSED, marks=pytest.mark.long), deadly.SEEN], ids=["parsed", "seen"]
)
async def test_a_message_that_kills_intake_beside_500_good_ones(tmp_path: Path, marker: bytes) -> None:
    """Intake dies three times; then the message is refused, and it alone: each good one is a job that succeeds."""
    async with running(tmp_path, "tests.faults.deadly") as (installation, fleet, key):
        messages: list[tuple[str, Any]] = [*good(500, 2)]
        messages.insert(50, ("chaos.killer", b'{"id":"killer","payload":{"a":"' + marker + b'"}}'))
        await asyncio.to_thread(installation.publish_many, messages, key)
        await eventually(lambda: len(fleet.deaths) == 3, "intake died three times", timeout=120)
        ((headers, body),) = await installation.rejected()
        assert headers["x-rejected-reason"].startswith("crashed_intake: ")
        assert (marker in body) == (marker is deadly.PARSED)
        await all_succeeded(installation, 500)
        assert [(death.member, death.code) for death in fleet.deaths] == [("intake-1", -9)] * 3
        (document,) = installation.db.jobs.find({"type": "chaos.killer"})
        assert (document["state"], document["error"]["type"]) == ("rejected", "crashed_intake")
        assert installation.depth(installation.names.rejected) == 0
