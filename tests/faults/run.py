"""One run of chaos: servers of its own, proxies, a fleet, jobs, faults; then everything is settled and compared."""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from dev.mongo import LocalMongo
from dev.rabbit import LocalRabbit
from dispatcher import Client
from tests.faults.executions import LEDGER_VARIABLE, read_executions
from tests.faults.faults import DECLARED, HEARTBEAT, Scene, chosen
from tests.faults.fleet import MEMBERS, WATCH, Fleet
from tests.faults.ledger import Evidence, Happened, settle
from tests.faults.load import Load
from tests.faults.plan import LENGTHS, WEIGHTS, Job, make_plan, own_name
from tests.faults.schedule import Planned, Trouble, make_schedule
from tests.faults.scrape import all_ready, scrape
from tests.faults.settling import Settling
from tests.faults.transitions import Watching
from tests.proxy import Proxy
from tests.support import Installation, eventually

#: Seconds between two counts of the documents, for the line that tells how far it is.
LOOK_EVERY = 5.0
#: Seconds after which the publisher calls a publish unknown.
CONFIRM_TIMEOUT = 15.0


@dataclass(frozen=True)
class Scenario:
    """What a run does; all chance in it comes from the seed. ``gap``: seconds between faults on average."""

    seed: int
    jobs: int
    rate: float
    groups: tuple[str, ...] = ()
    gap: float = 5.0
    lengths: Mapping[int, int] = field(default_factory=lambda: LENGTHS)
    weights: Mapping[str, int] = field(default_factory=lambda: WEIGHTS)
    #: Jobs that kill their process, every time.
    poison: int = 0
    #: Seconds without any progress after which a run is given up.
    patience: float = 180.0
    #: Jobs and faults in place of those that the seed chooses.
    plan: Sequence[Job] | None = None
    schedule: Sequence[Planned] | None = None

    def make_plan(self) -> Sequence[Job]:
        """The jobs."""
        how = {"lengths": self.lengths, "weights": self.weights, "poison": self.poison}
        return self.plan or make_plan(self.jobs, self.seed, **how)

    def make_schedule(self, seconds: float) -> Sequence[Planned]:
        """The faults, while jobs are published for so many seconds."""
        if self.schedule is not None:
            return self.schedule
        return make_schedule(self.seed, chosen(self.groups), seconds, self.gap)


@dataclass
class Outcome:
    """How a run went: what was seen, the discrepancies by check, and its times in seconds."""

    scenario: Scenario
    evidence: Evidence
    discrepancies: dict[str, list[str]]
    killed: dict[str, int]
    seconds: float
    settled_after: float
    complaints: list[str]

    @property
    def clean(self) -> bool:
        """Whether nothing does not fit."""
        return not any(self.discrepancies.values())


Progress = Callable[[str], None]
#: What is done beside publishing and faults, for example a measurement.
Beside = Callable[[Scene, Load, Trouble], Awaitable[None]]


async def nothing(scene: Scene, load: Load, trouble: Trouble) -> None:
    """Nothing beside."""


async def run(
    scenario: Scenario,
    rabbit: LocalRabbit,
    mongo: LocalMongo,
    folder: Path,
    progress: Progress = lambda _: None,
    beside: Beside = nothing,
) -> Outcome:
    """Run a scenario on servers that may be killed; they run at the beginning and at the end.

    The folder keeps the services' logs and the handlers' file.
    """
    folder.mkdir(parents=True, exist_ok=True)
    began = time.time()
    async with _stage(scenario, rabbit, mongo, folder) as (scene, load, watching):
        trouble = Trouble(scene, scenario.make_schedule(load.seconds))
        settling = Settling(scene, load.published, scenario.patience)
        telling = asyncio.create_task(_tell(progress, folder / "progress.log", load, trouble, settling))
        await asyncio.gather(load.publish(), trouble.make(), beside(scene, load, trouble))
        published_at = time.time()
        leftovers, notes = await settling.wait()
        telling.cancel()
        parked = [json.loads(body)["id"] for _, body in await asyncio.to_thread(parked_messages, scene.installation)]
        evidence = Evidence(
            published=load.published,
            executions=read_executions(scene.executions),
            documents=[doc | {"id": own_name(doc)} for doc in scene.installation.db.jobs.find()],
            published_again=load.published_again,
            transitions=await asyncio.to_thread(watching.stop),
            statistics=await asyncio.to_thread(_statistics, scene.installation),
            parked=parked,
            leftovers=leftovers,
            scrapes=await asyncio.to_thread(scrape, scene.fleet),
            faults=trouble.happened + _poisoned(scene.fleet),
            deaths=scene.fleet.deaths,
            notes=trouble.failed + notes,
            poison=bool(scenario.poison),
        )
        settled_after = time.time() - published_at
    (folder / "faults.json").write_text(json.dumps([asdict(fault) for fault in evidence.faults], indent=1))
    evidence.notes += [f"{name} did not end when told to" for name in scene.fleet.stubborn]
    killed, complaints = scene.fleet.killed(), scene.fleet.complaints()
    return Outcome(scenario, evidence, settle(evidence), killed, time.time() - began, settled_after, complaints)


@asynccontextmanager
async def _stage(
    scenario: Scenario, rabbit: LocalRabbit, mongo: LocalMongo, folder: Path
) -> AsyncIterator[tuple[Scene, Load, Watching]]:
    """Everything that a run needs, running."""
    executions = folder / "executions"
    installation = _installation(rabbit, mongo)
    await asyncio.to_thread(installation.apply)
    key = await installation.create_key("chaos")
    watching = await asyncio.to_thread(Watching, mongo.url, installation.settings.mongo.database)
    watching.start()
    await asyncio.sleep(DECLARED)
    async with AsyncExitStack() as stack:
        amqp = await stack.enter_async_context(Proxy.before(rabbit.url))
        database = await stack.enter_async_context(Proxy.before(mongo.url))
        environment = installation.environment() | {
            "DISPATCHER_AMQP__URL": amqp.url(rabbit.url),
            "DISPATCHER_AMQP__HEARTBEAT": str(HEARTBEAT),
            # the driver would go round the proxy to the address that the replica set names
            "DISPATCHER_MONGO__URL": database.url(mongo.url).partition("?")[0] + "?directConnection=true",
            "DISPATCHER_SCHEDULER__ROLLUP_QUIET": "30",
            "DISPATCHER_LOG__LEVEL": "info",
            "DISPATCHER_LOG__FORMAT": "json",
            LEDGER_VARIABLE: str(executions),
        }
        fleet = await stack.enter_async_context(Fleet(environment, folder, MEMBERS))
        await eventually(lambda: asyncio.to_thread(all_ready, fleet), "the services are ready", every=0.2)
        prefix = installation.settings.amqp.prefix
        client = await stack.enter_async_context(
            Client(amqp.url(rabbit.url), key, prefix=prefix, timeout=CONFIRM_TIMEOUT)
        )
        load = Load(client, scenario.make_plan(), scenario.rate)
        yield Scene(rabbit, mongo, amqp, database, fleet, installation, executions, load.one), load, watching
    await asyncio.to_thread(installation.remove)


def _installation(rabbit: LocalRabbit, mongo: LocalMongo) -> Installation:
    return Installation.on(rabbit.url, mongo.url, "chaos", DISPATCHER_LANES='["default", "bulk"]')


def _poisoned(fleet: Fleet) -> list[Happened]:
    """Deaths that nobody planned, as faults: the watch sees them a moment later."""
    return [Happened("death by itself", d.member, d.at - 2 * WATCH, d.at, True) for d in fleet.deaths if not d.ours]


def parked_messages(installation: Installation) -> list[tuple[dict[str, Any], bytes]]:
    """Headers and body of every parked message; they are taken out."""
    names = installation.names
    return [message for lane in installation.settings.lanes for message in installation.drain(names.parked(lane))]


def _statistics(installation: Installation) -> dict[str, Any]:
    """What ``dispatcher stats --json`` says."""
    done = subprocess.run(
        [sys.executable, "-m", "dispatcher.cli.main", "stats", "--json"],
        env=os.environ | installation.environment(),
        capture_output=True,
        check=True,
    )
    found: dict[str, Any] = json.loads(done.stdout)
    return found


async def _tell(progress: Progress, log: Path, load: Load, trouble: Trouble, settling: Settling) -> None:
    """A line a second of how far it is, told and kept."""
    published, look_at = load.published, 0.0
    with log.open("a") as file:
        while True:
            if time.monotonic() >= look_at:  # counting the documents of a long run is not free
                await asyncio.to_thread(settling.look)
                look_at = time.monotonic() + LOOK_EVERY
            line = (
                f"published {len(published.attempted)}, acknowledged {len(published.acknowledged)}, "
                f"final {settling.final}, faults {len(trouble.happened)} {' '.join(trouble.under_way)}"
            )
            progress(line)
            print(f"{time.time():.1f} {line}", file=file, flush=True)
            await asyncio.sleep(1)
