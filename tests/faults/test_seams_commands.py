"""An operator's command, or a client, dies at each of its seams; the command is given again, and the outcome is right.

What they publish, and what is acknowledged then (each line is a set of cases below):

    dead replay    the new run's first step, then Rerun         the parked message
                   a copy of each message looked at with it     the message that it copies
    jobs retry     the new run's first step, then Rerun         nothing
    a Client       the job                                      nothing

Commands about keys write one document each, and `topology apply` declares: both are whole or not at all, and done
again they change nothing. `rejected list` and `dead list` acknowledge nothing.

The right outcome: one run more, with one final state. The new run is known by its number, which follows from the
document or from the parked message, so that the same command given twice starts the same run twice at most: one step
of one number, which one worker executes once. Once history has that run's success the job is not dead, and is not
replayed; what is left of it among the parked ones goes with the next replay of that job, or by its age.
"""

from __future__ import annotations

import asyncio
import json
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

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
from tests.processes import Finished, ServiceProcess, invoke, invoked
from tests.support import Installation, eventually

pytestmark = [pytest.mark.faults, pytest.mark.timeout(600)]

AT_ONCE = 4
ONCE_MORE = ["1.1 failed", "2.1 succeeded"]


@dataclass(frozen=True)
class Case:
    """A command on a dead job and where it dies; the name is the job's id and its lane."""

    name: str
    at: str
    where: str
    #: Whether the command is given again; else it may not be, since it did its work. None: it may have done it, since
    #: what a rotation looks at together is published together.
    again: bool | None = False
    #: Parked messages at the end, by id.
    parked: dict[str, int] = field(default_factory=dict)

    @property
    def command(self) -> list[str]:
        """What the operator types."""
        return ["jobs", "retry", self.name] if self.name.startswith("retry") else ["dead", "replay", self.name]

    @property
    def bystander(self) -> str:
        """A dead job that was parked before, whose message the replay goes past."""
        return f"{self.name}-other" if self.name.startswith("past") else ""


CASES = [
    Case("replay-unwritten", "unwritten", "work", again=True),
    Case("replay-split", "written", "work", parked={"replay-split": 1}),
    Case("replay-written", "written", "history", parked={"replay-written": 1}),
    Case("replay-confirmed", "confirmed", "work", parked={"replay-confirmed": 1}),
    # the other one is there twice then: its own replay starts one run, and takes both
    Case("past-unwritten", "unwritten", "parked", again=None),
    Case("past-written", "written", "parked", again=None),
    Case("past-confirmed", "confirmed", "parked", again=None),
    # a retry leaves the parked message of the run before
    Case("retry-unwritten", "unwritten", "work", again=True, parked={"retry-unwritten": 1}),
    Case("retry-split", "written", "work", parked={"retry-split": 1}),
    Case("retry-written", "written", "history", parked={"retry-written": 1}),
    Case("retry-confirmed", "confirmed", "work", parked={"retry-confirmed": 1}),
]
JOBS = [name for case in CASES for name in (case.bystander, case.name) if name]


@dataclass
class Seen:
    """What the one play of all cases left."""

    ledger: Path
    documents: dict[str, dict[str, Any]]
    parked: dict[str, Counter[str]]
    left: dict[str, int]


@pytest.fixture(scope="module")
def seen(tmp_path_factory: pytest.TempPathFactory) -> Seen:
    """Jobs that failed in their first run, commands that die at their seams, and a worker that goes on all the time."""
    folder = tmp_path_factory.mktemp("commands")
    with installed([case.name for case in CASES]) as installation:
        return asyncio.run(_play(installation, folder))


async def _play(installation: Installation, folder: Path) -> Seen:
    settings, env = installation.settings, {LEDGER_VARIABLE: str(folder / "executions")}
    key = await installation.create_key()
    async with (
        run_services(Intake(settings), Recorder(settings)),
        ServiceProcess(installation, "worker", HANDLERS, env=env) as worker,
    ):
        for bystanders in (True, False):  # they are parked first
            dead = [(case.bystander if bystanders else case.name, case.name) for case in CASES]
            dead = [(job, lane) for job, lane in dead if job]
            messages = [{"id": job, "lane": lane, "payload": {"ms": 0}} for job, lane in dead]
            installation.publish_many([("chaos.rerun", message) for message in messages], key)
            await settled(installation, "dead jobs", jobs=[job for job, _ in dead])
        few, alone = asyncio.Semaphore(AT_ONCE), asyncio.Lock()
        async with asyncio.TaskGroup() as group:
            for case in CASES:
                group.create_task(_die(installation, case, folder / case.name, few, alone))
        await settled(installation, "commands", worker)
        await statistics_match(installation)
    return Seen(
        folder / "executions",
        by_id(installation.db.jobs),
        {case.name: Counter(parked(installation, case.name)) for case in CASES},
        left(installation),
    )


async def _die(
    installation: Installation, case: Case, folder: Path, few: asyncio.Semaphore, alone: asyncio.Lock
) -> None:
    async def command(*arguments: str) -> Finished:
        async with alone:  # a command in this process has the whole process's streams
            return await asyncio.to_thread(invoke, installation, *arguments)

    names = installation.names
    place = names.parked(case.name) if case.where == "parked" else getattr(names, case.where)
    async with few:
        await stopped(installation, folder, Stop(case.at, place, (case.bystander or case.name,)), *case.command)
    if case.again:
        assert (installation.job(case.name) or {})["run"] == 1
        assert (await command(*case.command)).code == 0
    elif case.again is None:
        again = await command(*case.command)
        assert again.code == 0 or "not dead" in again.err
    await eventually(lambda: _ran_again(installation, case.name), f"{case.name} is in its second run")
    if case.bystander:
        assert (await command("dead", "replay", case.bystander)).code == 0
        await eventually(lambda: _ran_again(installation, case.bystander), f"{case.bystander} is in its second run")
    refused = await command("dead", "replay", case.name)
    assert refused.code == 1
    assert "not dead" in refused.err


def _ran_again(installation: Installation, job: str) -> bool:
    document = installation.job(job) or {}
    return document.get("run") == 2 and document["state"] == "succeeded"


@pytest.mark.parametrize("case", CASES, ids=lambda c: c.name)
def test_a_command_dies(seen: Seen, case: Case) -> None:
    """One run more of each job, executed once, which succeeds; then no replay of it is possible any more."""
    for job in filter(None, (case.name, case.bystander)):
        document = seen.documents[job]
        assert (document["state"], document["run"]) == ("succeeded", 2)
        assert outcomes(document) == ONCE_MORE
        assert [(e.step[1], e.step[2]) for e in executed(seen.ledger, job)] == [(1, 1), (2, 1)]
        history_matches(document, seen.ledger)
    if case.again is None:  # its message stays where it was replayed already
        assert seen.parked[case.name] in ({}, {case.name: 1})
    else:
        assert seen.parked[case.name] == case.parked
    assert seen.left == {}


@pytest.mark.parametrize("cut", [True, False], ids=["cut off", "killed"])
async def test_a_publish_is_repeated_with_its_id(tmp_path: Path, cut: bool) -> None:
    """The broker has the job, the client does not know: it, or who starts it again, publishes the same id again."""

    async def play(installation: Installation) -> None:
        key = await installation.create_key()
        command = ["publish", "seam.published", '{"x": 1}', "--id", "chosen", "--wait", "0"]
        env = {"DISPATCHER_API_KEY": key}
        stop = Stop("written", installation.names.jobs, ("chosen",), cut=cut)
        await stopped(installation, tmp_path / "client", stop, *command, env=env)
        if not cut:
            await invoked(installation, *command, env=env)
        await eventually(lambda: installation.depth(installation.names.intake) == 2, "it was published twice")
        bodies = [json.loads(body) for _, body in installation.drain(installation.names.intake)]
        assert bodies == [{"id": "chosen", "payload": {"x": 1}}] * 2

    def in_thread() -> None:
        with installed() as installation:
            asyncio.run(play(installation))

    await asyncio.to_thread(in_thread)
