"""`make upgrade`: two versions side by side under load, service by service, there and back; nothing may be lost.

The old version runs with its own code, and with its own libraries where it requires others. Jobs of all kinds are
published at a steady rate all the time; those that the old version does not know only while no old service is there.
In the end everything known from outside is compared, as by `make chaos`, but nothing excuses an extra execution here.
"""

from __future__ import annotations

import asyncio
import json
import logging
import sys
import time
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import click

from dev.mongo import LocalMongo
from dev.process import ServerError
from dev.rabbit import LocalRabbit
from dispatcher import Client
from dispatcher.core.lifecycle import FINAL
from tests.faults import upgrade_report, versions
from tests.faults.command import fresh, own_servers
from tests.faults.executions import LEDGER_VARIABLE, read_executions
from tests.faults.faults import DECLARED
from tests.faults.fleet import ROOT, Code, Fleet
from tests.faults.ledger import Evidence, settle
from tests.faults.plan import own_name
from tests.faults.run import parked_messages
from tests.faults.scrape import all_ready, ready, scrape
from tests.faults.settling import Settling
from tests.faults.transitions import Watching
from tests.faults.upgrade_load import SteadyLoad, early_starts, make_upgrade_plan, uses
from tests.support import Installation, eventually

HANDLERS = "tests.faults.upgrade_handlers:jobs"
#: The documented order, readers first; two of each, so that one of the old and one of the new run side by side.
ORDER = ("recorder", "scheduler", "worker", "intake")
EACH = 2
#: Seconds that a service gets to stop: a worker's own grace is 30.
STOP = 60.0
#: Seconds that it gets to start on a machine that does much else.
START = 180.0
#: Most jobs of a rehearsal, in seconds of the rate: it ends long before.
LONGEST = 1_200
#: Seconds after which everything that is under way is over.
RUN_OUT = 240.0
#: Seconds between two looks at every /readyz.
LOOK_EVERY = 0.5


@dataclass(frozen=True)
class Rehearsal:
    """What is rehearsed: jobs a second; seconds side by side; in which order; whether fields that
    the old version lacks are used as soon as intakes know them; and whether back again."""

    seed: int = 1
    rate: float = 60.0
    beside: float = 5.0
    order: str = "documented"
    early: bool = False
    back: bool = True
    patience: float = 60.0


@dataclass(frozen=True, slots=True)
class Done:
    """A step: from when to when, seconds until the old process ended and until the new one was ready, its exit code."""

    name: str
    began: float
    ended: float
    stopped_after: float = 0.0
    ready_after: float = 0.0
    code: int = 0


@dataclass
class Account:
    """How it went."""

    rehearsal: Rehearsal
    versions: dict[str, str]
    withheld: list[str]
    steps: list[Done]
    evidence: Evidence
    discrepancies: dict[str, list[str]]
    complaints: list[str]
    #: Messages that old services had set aside, by the command that put them back.
    readmitted: dict[str, int] = field(default_factory=dict)
    seconds: float = 0.0

    @property
    def clean(self) -> bool:
        """Whether nothing does not fit."""
        return not any(self.discrepancies.values())


@dataclass
class _Stage:
    """An installation with services of two versions; `Settling` looks at it."""

    rabbit: LocalRabbit
    installation: Installation
    executions: Path
    environment: Mapping[str, str]
    fleet: Fleet
    load: SteadyLoad
    say: Callable[[str], None]
    steps: list[Done] = field(default_factory=list)
    findings: list[str] = field(default_factory=list)
    readmitted: dict[str, int] = field(default_factory=dict)

    async def during(self, name: str, seconds: float) -> None:
        """Let everything run for so long."""
        began = time.time()
        self.say(name)
        await asyncio.sleep(seconds)
        self.steps.append(Done(name, began, time.time()))

    async def command(self, code: Code, *arguments: str) -> str:
        """Run a command of a version; its failure is a finding."""
        began = time.time()
        done = await asyncio.to_thread(versions.command, code, self.environment, *arguments)
        self.steps.append(Done(f"{' '.join(arguments)} ({code.name})", began, time.time(), code=done.returncode))
        if done.returncode:
            self.findings.append(f"{' '.join(arguments)} of {code.name}: {(done.stdout + done.stderr).strip()[-400:]}")
        return done.stdout

    async def replace(self, member: str, code: Code) -> None:
        """Stop a service in good order, and start it with another version's code."""
        self.say(f"{member} becomes {code.name}")
        began = time.time()
        exit_code = await asyncio.to_thread(self.fleet.stop, member, STOP)
        stopped = time.time()
        self.fleet.members[member].code = code
        self.fleet.start(member)
        try:
            new = self.fleet.members[member]
            await eventually(lambda: asyncio.to_thread(ready, new), member, timeout=START, every=0.1)
        except AssertionError:
            self.findings.append(f"{member} of {code.name} is not ready after {START:g} s")
        now = time.time()
        self.steps.append(Done(f"{member} -> {code.name}", began, now, stopped - began, now - stopped, exit_code))
        if exit_code:
            self.findings.append(f"{member} ended with {exit_code} when it was told to stop")

    async def roll(self, kinds: Sequence[str], code: Code, beside: float) -> None:
        """Replace service after service; after each, old and new run side by side for a while."""
        for kind in kinds:
            for number in range(1, EACH + 1):
                await self.replace(f"{kind}-{number}", code)
                await self.during(f"{kind}s side by side" if number < EACH else f"{kind}s {code.name}", beside)

    async def watch_ready(self) -> None:
        """Every service that is not being replaced says that it is ready, all the time."""
        while True:
            for member in self.fleet.members.values():
                pid = member.pid
                fine = await asyncio.to_thread(ready, member)
                if not fine and not member.away and member.pid == pid and pid in self._established:
                    self.findings.append(f"{member.name} of {member.code.name} was not ready at {time.time():.1f}")
                elif fine:
                    self._established.add(pid)
            await asyncio.sleep(LOOK_EVERY)

    #: Processes that were ready once.
    _established: set[int] = field(default_factory=set)


async def rehearse(
    rehearsal: Rehearsal,
    codes: tuple[Code, Code],
    withheld: frozenset[str],
    servers: tuple[LocalRabbit, LocalMongo],
    folder: Path,
    say: Callable[[str], None],
) -> Account:
    """Do all of it, from ``codes[0]`` to ``codes[1]`` and back; ``withheld`` are the fields that the old one lacks."""
    began = time.time()
    old, new = codes
    async with _stage(rehearsal, old, withheld, servers, folder, say) as (stage, watching):
        publishing = asyncio.create_task(stage.load.publish())
        looking = asyncio.create_task(stage.watch_ready())
        await (_there_and_back if rehearsal.order == "documented" else _reverse)(stage, rehearsal, old, new)
        stage.load.over.set()
        await publishing
        say("settling")
        settling = Settling(stage, stage.load.published, rehearsal.patience)
        leftovers, notes = await settling.wait()
        looking.cancel()
        evidence = await asyncio.to_thread(_evidence, stage, watching, leftovers, stage.findings + notes)
    evidence.notes += [f"{name} did not end when told to" for name in stage.fleet.stubborn]
    discrepancies = settle(evidence) | {"started before their delay": early_starts(evidence)}
    return Account(
        rehearsal,
        {},
        sorted(withheld),
        stage.steps,
        evidence,
        discrepancies,
        stage.fleet.complaints(),
        stage.readmitted,
        time.time() - began,
    )


async def _there_and_back(stage: _Stage, rehearsal: Rehearsal, old: Code, new: Code) -> None:
    """As docs/upgrade.md says, and back."""
    beside, withheld = rehearsal.beside, stage.load.withheld
    await stage.during("old", 2 * beside)
    await stage.command(new, "topology", "apply")
    await stage.during("old, new topology", beside)
    await stage.roll(ORDER, new, beside)
    stage.load.withheld = frozenset()
    await stage.during("new", 3 * beside)
    await stage.command(new, "doctor")
    if not rehearsal.back:
        return
    stage.load.withheld = withheld
    await _run_out(stage, withheld)
    await stage.roll(ORDER[::-1], old, beside)
    await stage.during("old again", beside)


async def _reverse(stage: _Stage, rehearsal: Rehearsal, old: Code, new: Code) -> None:
    """Writers first. With ``early`` they write what old readers do not know; what those set aside goes back at last."""
    beside = rehearsal.beside
    await stage.during("old", beside)
    await stage.command(new, "topology", "apply")
    for kind in ORDER[::-1]:
        await stage.roll([kind], new, beside)
        if rehearsal.early:
            stage.load.withheld = frozenset()
    stage.load.withheld = frozenset()
    await stage.during("new", beside)
    if rehearsal.early:
        for command in (("unrecorded", "readmit"), ("dead", "readmit")):
            told = await stage.command(new, *command, "--json")
            stage.readmitted[" ".join(command)] = json.loads(told or "{}").get("readmitted", 0)


async def _run_out(stage: _Stage, withheld: frozenset[str]) -> None:
    """Wait until every job with a field that the old version lacks is over, and none of them is sent again."""
    began = time.time()
    await asyncio.sleep(11 if withheld else 0)  # the longest time after which a job is sent again
    jobs = stage.load.published.jobs.values()
    named = [job.id for job in jobs if uses(job, withheld)]

    def over() -> bool:
        final = {"id": {"$in": named}, "state": {"$in": [*FINAL]}}
        return bool(stage.installation.db.jobs.count_documents(final) == len(named))

    stage.say("what the old version does not know runs out")
    try:
        await eventually(lambda: asyncio.to_thread(over), "jobs of new kinds are over", timeout=RUN_OUT, every=0.5)
    except AssertionError:
        stage.findings.append(f"jobs with {', '.join(withheld)} are not over after {RUN_OUT:g} s")
    stage.steps.append(Done("new fields run out", began, time.time()))


def _evidence(stage: _Stage, watching: Watching, leftovers: dict[str, int], notes: list[str]) -> Evidence:
    """Everything that is known, after everything has settled."""
    code = next(iter(stage.fleet.members.values())).code
    told = versions.command(code, stage.environment, "stats", "--json").stdout
    documents = [doc | {"id": own_name(doc)} for doc in stage.installation.db.jobs.find()]
    bodies = [json.loads(body) for _, body in parked_messages(stage.installation)]
    return Evidence(
        published=stage.load.published,
        executions=read_executions(stage.executions),
        documents=documents,
        transitions=watching.stop(),
        statistics=json.loads(told or "{}"),
        parked=[body.get("id", f"batch {body.get('batch')}") for body in bodies],
        leftovers=leftovers,
        scrapes=scrape(stage.fleet),
        deaths=stage.fleet.deaths,
        stopped=stage.fleet.stopped,
        published_again=stage.load.published_again,
        notes=notes,
    )


@asynccontextmanager
async def _stage(
    rehearsal: Rehearsal,
    old: Code,
    withheld: frozenset[str],
    servers: tuple[LocalRabbit, LocalMongo],
    folder: Path,
    say: Callable[[str], None],
) -> AsyncIterator[tuple[_Stage, Watching]]:
    """An installation of the old version, as its own commands make it, with load to come."""
    rabbit, mongo = servers
    installation = Installation.on(rabbit.url, mongo.url, "upgrade", DISPATCHER_LANES='["default", "bulk"]')
    environment = installation.environment() | {
        LEDGER_VARIABLE: str(folder / "executions"),
        "DISPATCHER_SCHEDULER__ROLLUP_QUIET": "30",
        "DISPATCHER_LOG__LEVEL": "info",
        "DISPATCHER_LOG__FORMAT": "json",
    }
    say("the old version is installed")
    for arguments in (["topology", "apply"], ["keys", "create", "--app", "chaos", "--json"]):
        done = await asyncio.to_thread(versions.command, old, environment, *arguments)
        if done.returncode:
            raise ServerError(f"{' '.join(arguments)} of the old version: {done.stderr[-500:]}")
    key = json.loads(done.stdout)["key"]
    watching = await asyncio.to_thread(Watching, mongo.url, installation.settings.mongo.database)
    watching.start()
    await asyncio.sleep(DECLARED)
    members = [f"{kind}-{number}" for kind in ORDER for number in range(1, EACH + 1)]
    plan = make_upgrade_plan(int(LONGEST * rehearsal.rate), rehearsal.seed)
    async with (
        Fleet(environment, folder, members, HANDLERS, code=old) as fleet,
        Client(rabbit.url, key, prefix=installation.names.prefix) as client,
    ):
        started = "the old services are ready"
        await eventually(lambda: asyncio.to_thread(all_ready, fleet), started, timeout=START, every=0.2)
        load = SteadyLoad(client, plan, rehearsal.rate, withheld)
        executions = folder / "executions"
        yield _Stage(rabbit, installation, executions, environment, fleet, load, say), watching
    await asyncio.to_thread(installation.remove)


def _say(text: str) -> None:
    """A step, with the time, on stderr."""
    print(f"{time.strftime('%H:%M:%S')} {text}", file=sys.stderr, flush=True)


@click.command()
@click.option("--from", "old", help="The old version, a git ref.  [default: the latest release before this commit]")
@click.option("--to", "new", default=str(ROOT), help="The new version, a git ref or a folder.  [default: this tree]")
@click.option("--seed", type=int, default=1, show_default=True, help="Chooses the jobs.")
@click.option("--rate", default=60.0, show_default=True, help="Jobs a second.")
@click.option("--beside", default=5.0, show_default=True, help="Seconds that old and new run side by side, each time.")
@click.option(
    "--order",
    type=click.Choice(["documented", "reverse"]),
    default="documented",
    show_default=True,
    help="Reverse: intakes first, recorders last; and not back.",
)
@click.option("--early", is_flag=True, help="In reverse order, use new fields as soon as all intakes are new.")
@click.option("--no-back", is_flag=True, help="Leave the way back out.")
@click.option("--json", "as_json", is_flag=True, help="Print a JSON document.")
@click.option("--keep", type=click.Path(path_type=Path), help="Move logs and the handlers' lines here.")
def main(old: str | None, new: str, no_back: bool, as_json: bool, keep: Path | None, **options: Any) -> None:
    """Upgrade service by service under load, from an old version to a new one and back; nothing may be lost."""
    rehearsal = Rehearsal(**options, back=not no_back)
    old = old or versions.default_ref()
    with own_servers() as (rabbit, mongo, folder):
        logging.basicConfig(filename=folder / "run" / "harness.log", level=logging.WARNING, force=True)
        try:
            codes = versions.lay_out(old, "old", folder), versions.lay_out(new, "new", folder)
            named = {code.name: versions.described(code, what) for code, what in zip(codes, (old, new), strict=True)}
            withheld = versions.not_known(codes[0]) - versions.not_known(codes[1])
            account = asyncio.run(rehearse(rehearsal, codes, withheld, (rabbit, mongo), folder / "run", _say))
        except ServerError as error:
            raise click.ClickException(str(error)) from None
        account.versions = named
        if keep is not None:
            (folder / "run").rename(fresh(keep, "upgrade"))
    told = upgrade_report.figures(account) if as_json else upgrade_report.show(account)
    print(json.dumps(told) if as_json else told, flush=True)
    sys.exit(0 if account.clean else 1)


if __name__ == "__main__":
    main()
