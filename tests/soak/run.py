"""One soak: servers of its own, each service a process, five phases, and samples of everybody's memory throughout."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import AsyncIterator, Callable, Iterable, Iterator
from contextlib import AsyncExitStack, asynccontextmanager, contextmanager
from dataclasses import astuple, dataclass, field
from pathlib import Path
from typing import Any

from dev.mongo import LocalMongo
from dev.rabbit import LocalRabbit
from dispatcher import composition
from dispatcher.edges.amqp import Publisher
from dispatcher.services.host import GIVE_BACK_EVERY
from schemas import PRIORITIES
from tests.faults.fleet import Fleet
from tests.faults.scrape import all_ready
from tests.soak import memory
from tests.soak.checks import complaints, huge_problems, too_many_series
from tests.soak.handlers import RELEASE_VARIABLE
from tests.soak.load import Load, create_keys
from tests.soak.verdict import HUGE, HUGE_TIMES, IDLE, STEADY, Row, Sample, rows
from tests.support import Installation, eventually

MEMBERS = ("scheduler-1", "recorder-1", "intake-1", "worker-1")
#: Seconds between two samples, between two looks at queues, of quiet before a phase ends, and without any progress
#: after which a soak is given up.
EVERY, LOOK, QUIET, PATIENCE = 2.0, 5.0, 10.0, 300.0
#: Seconds after which a process has returned to the system what it does not need any more.
GIVEN_BACK = GIVE_BACK_EVERY + QUIET
#: Jobs of all kinds before the idle memory is measured: what is loaded at first use is no growth.
WARM = 2_000
#: Messages with unknown keys, for each key.
STRANGERS = 10
#: The least part of the whole time that is steady load.
STEADY_PART = 1 / 3

Progress = Callable[[str], None]


@dataclass(frozen=True)
class Plan:
    """How long, and how much of everything. ``rate``: jobs a second of the steady load."""

    minutes: float = 60
    queued: int = 1_000_000
    delayed: int = 100_000
    keys: int = 10_000
    rate: float = 200


@dataclass
class Outcome:
    """What a soak showed; ``problems`` are those that no process's memory tells."""

    plan: Plan
    rows: list[Row]
    seconds: float
    published: int
    documents: int
    queues: dict[str, dict[str, int]]
    problems: list[str]

    @property
    def clean(self) -> bool:
        """Whether every bound holds."""
        return not self.problems and not any(row.problems for row in self.rows)


@dataclass
class Soak:
    """Everything running, and what was seen so far."""

    plan: Plan
    installation: Installation
    fleet: Fleet
    load: Load
    servers: dict[str, int]
    folder: Path
    progress: Progress
    began: float = field(default_factory=time.monotonic)
    phase: str = ""
    samples: list[Sample] = field(default_factory=list)
    queues: dict[str, dict[str, int]] = field(default_factory=dict)
    problems: list[str] = field(default_factory=list)

    async def run(self) -> None:
        """All phases."""
        self.queues["at first"] = await asyncio.to_thread(self.depths)
        with self._phase(IDLE, reset=False):
            await self.load.publish(self.load.mixed(WARM))
            await self.intake_is_through()
            await asyncio.sleep(QUIET)
        with self._phase("keys"):
            self.load.keys = await asyncio.to_thread(create_keys, self.installation, self.plan.keys)
            await self.load.publish(self.load.message("soak.plain", n) for n in range(self.plan.keys))
            await self.load.publish(self.load.strangers(STRANGERS * self.plan.keys))
            await self.intake_is_through()
        with self._phase("ladder"):
            shortest, longest = 30 * self.plan.minutes, 55 * self.plan.minutes
            await self.load.publish(self.load.delayed(self.plan.delayed, shortest, longest))
            await self.until(lambda left: self._in_ladder(left) >= self.plan.delayed, "jobs are in the ladder")
        with self._phase("queued"):
            await self.load.publish(self.load.held(self.plan.queued))
            await self.intake_is_through()
            await asyncio.sleep(QUIET)
            self.queues["full"] = await asyncio.to_thread(self.depths)
        with self._phase(HUGE):
            self.problems += await self.huge()
            await asyncio.sleep(GIVEN_BACK)
        with self._phase("drain"):
            release_file(self.folder).touch()
            loading = asyncio.create_task(self.load.steadily(self.plan.rate, lambda: False))
            await self.until(lambda left: self._in_work(left) < self.plan.rate, "the backlog is gone")
            loading.cancel()
            await asyncio.gather(loading, return_exceptions=True)
        with self._phase(STEADY):
            end = max(self.began + 60 * self.plan.minutes, time.monotonic() + 60 * self.plan.minutes * STEADY_PART)
            await self.load.steadily(self.plan.rate, lambda: time.monotonic() > end)
        self.queues["at the end"] = await asyncio.to_thread(self.depths)
        self.problems += await asyncio.to_thread(too_many_series, self.fleet)
        self.problems += complaints(self.fleet)

    async def huge(self) -> list[str]:
        """Handlers return 100 MB, one after the other, beside jobs that are none of their business."""
        problems: list[str] = []
        for kind in ("loop", "thread", "process"):
            for time_ in range(HUGE_TIMES):
                job = f"huge-{kind}-{time_}"
                ids = [f"{job}-beside-{n}" for n in range(20)]
                key = self.load.keys[0]
                await self.load.publish(
                    [
                        self.load.message(f"soak.huge.{kind}", 0, key, id=job, priority="critical"),
                        *(self.load.message("soak.plain", 0, key, id=i, priority="critical") for i in ids),
                    ]
                )
                found = [await self.installation.finished(i, "app-0", timeout=PATIENCE) for i in (job, *ids)]
                problems += huge_problems(found[0], found[1:])
        return problems

    @contextmanager
    def _phase(self, name: str, *, reset: bool = True) -> Iterator[None]:
        if reset:
            for pid in self._pids():
                memory.reset_peak(pid)
        self.phase = name
        self.sample()
        yield
        self.sample()

    def _pids(self) -> Iterable[int]:
        return [member.pid for member in self.fleet.members.values()]

    def sample(self) -> None:
        """Look at every process once."""
        at = time.monotonic() - self.began
        found = {name: memory.memory(member.pid) for name, member in self.fleet.members.items()}
        for worker in self.fleet.of_kind("worker"):
            found[f"{worker.name} children"] = memory.total(memory.descendants(worker.pid))
        for name, pid in self.servers.items():
            found[name] = memory.total([pid, *memory.descendants(pid)])
        with (self.folder / "samples.csv").open("a") as file:
            for name, seen in found.items():
                own = name in self.fleet.members  # the peaks of several together say nothing
                sample = Sample(name, self.phase, at, seen.rss, seen.pss, seen.peak if own else seen.rss)
                self.samples.append(sample)
                print(*astuple(sample), sep=",", file=file)

    async def sampling(self) -> None:
        """Samples, and a line of progress, until it is cancelled."""
        while True:
            await asyncio.sleep(EVERY)
            self.sample()
            newest = {s.process: s.rss >> 20 for s in self.samples[-len(MEMBERS) - 1 - len(self.servers) :]}
            sizes = " ".join(f"{name} {size}" for name, size in newest.items())
            minutes = (time.monotonic() - self.began) / 60
            self.progress(f"{minutes:5.1f} min  {self.phase}  published {self.load.published}  MiB: {sizes}")

    def depths(self) -> dict[str, int]:
        """Messages ready, by queue without its prefix, where there are some."""
        prefix = self.installation.names.prefix
        with self.installation.channel() as channel:
            found = {
                queue.name.removeprefix(prefix): channel.queue_declare(queue.name, passive=True).method.message_count
                for queue in composition.topology_of(self.installation.settings).queues
            }
        return {name: count for name, count in found.items() if count}

    def _in_ladder(self, left: dict[str, int]) -> int:
        delays = self.installation.names.delays.removeprefix(self.installation.names.prefix)
        return sum(count for name, count in left.items() if name.startswith(delays))

    def _in_work(self, left: dict[str, int]) -> int:
        work = self.installation.names.work.removeprefix(self.installation.names.prefix)
        return sum(count for name, count in left.items() if name.startswith(work))

    async def intake_is_through(self) -> None:
        """Wait until intake and the recorder have nothing left."""
        names = self.installation.names
        own = {name.removeprefix(names.prefix) for name in (names.intake, names.intake_deferred, names.history)}
        critical = names.work_queue("default", PRIORITIES[0]).removeprefix(names.prefix)
        await self.until(lambda left: not (own | {critical}) & left.keys(), "intake and the recorder are through")

    async def until(self, done: Callable[[dict[str, int]], bool], what: str) -> None:
        """Wait for queues to be as they should, as long as there is progress."""
        known, moved = {}, time.monotonic()  # type: tuple[dict[str, int], float]
        while not done(left := await asyncio.to_thread(self.depths)):
            if left != known:
                known, moved = left, time.monotonic()
            if time.monotonic() - moved > PATIENCE:
                raise AssertionError(f"nothing moved for {PATIENCE:g} s until {what}; left are {left}")
            await asyncio.sleep(LOOK)


def release_file(folder: Path) -> Path:
    """What lets the held jobs go."""
    return folder / "release"


async def run(plan: Plan, rabbit: LocalRabbit, mongo: LocalMongo, folder: Path, progress: Progress) -> Outcome:
    """Run a soak on servers that run. The folder keeps the services' logs and the samples."""
    async with _stage(plan, rabbit, mongo, folder, progress) as soak:
        sampling = asyncio.create_task(soak.sampling())
        try:
            await soak.run()
        except AssertionError as error:  # the table is shown all the same
            soak.problems.append(str(error))
        finally:
            sampling.cancel()
        documents = soak.installation.db.jobs.estimated_document_count()
        seconds = time.monotonic() - soak.began
    return Outcome(plan, rows(soak.samples), seconds, soak.load.published, documents, soak.queues, soak.problems)


@asynccontextmanager
async def _stage(
    plan: Plan, rabbit: LocalRabbit, mongo: LocalMongo, folder: Path, progress: Progress
) -> AsyncIterator[Soak]:
    installation = Installation.on(rabbit.url, mongo.url, "soak")
    await asyncio.to_thread(installation.apply)
    told = installation.environment() | {RELEASE_VARIABLE: str(release_file(folder))}
    servers = {
        "RabbitMQ": _pid(folder.parent / "rabbitmq/rabbitmq.pid"),
        "mongod": _pid(folder.parent / "mongo/mongod.pid"),
    }
    async with AsyncExitStack() as stack:
        fleet = await stack.enter_async_context(Fleet(told, folder, MEMBERS, "tests.soak.handlers:jobs"))
        await eventually(lambda: asyncio.to_thread(all_ready, fleet), "the services are ready", every=0.2)
        publisher = Publisher(rabbit.url, "soak")
        await publisher.start()
        stack.push_async_callback(publisher.close)
        first = await asyncio.to_thread(create_keys, installation, 1)
        load = Load(publisher, installation.names.jobs, first)
        yield Soak(plan, installation, fleet, load, servers, folder, progress)


def _pid(file: Path) -> int:
    record: dict[str, Any] = json.loads(file.read_text())
    return int(record["pid"])
