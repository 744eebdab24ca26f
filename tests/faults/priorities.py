"""`make priorities`: a backlog of lower jobs, higher ones meanwhile, several workers; what started when.

Everything is read from the documents: when a job was accepted, when it started, and on which worker. First higher jobs
come one by one, then as a flood.
"""

from __future__ import annotations

import asyncio
import json
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

import click

from dispatcher import Client
from schemas import PRIORITIES
from tests.faults.command import own_servers
from tests.faults.fleet import Fleet
from tests.faults.scrape import all_ready
from tests.support import Installation, eventually

HANDLERS = "tests.faults.priorities_handlers:jobs"
SERVICES = ("scheduler-1", "recorder-1", "intake-1")
TYPE = "load.sleep"
LOWER, HIGHER = ("low", "background"), ("critical", "high")
#: At most so large a part of the starts goes to lower jobs while higher ones wait; and starts in between.
MOST_LOWER = 0.1


@dataclass(frozen=True)
class Plan:
    """What is published, and who runs it."""

    workers: int = 3
    places: int = 4
    ms: int = 50
    backlog: int = 12_000
    single: int = 200
    every: float = 0.05
    flood: int = 3_000

    @property
    def worker_names(self) -> tuple[str, ...]:
        """The workers' processes."""
        return tuple(f"worker-{n}" for n in range(1, self.workers + 1))


@dataclass(frozen=True, slots=True)
class Started:
    """A job's acceptance and start, in milliseconds, and its worker."""

    id: str
    priority: str
    accepted: int
    started: int
    worker: str


async def run(plan: Plan, amqp_url: str, mongo_url: str, folder: Path) -> dict[str, Any]:
    """Run it on these servers; returns the figures."""
    installation = Installation.on(amqp_url, mongo_url, "priorities")
    await asyncio.to_thread(installation.apply)
    environment = installation.environment() | {"DISPATCHER_WORKER__CONCURRENCY": str(plan.places)}
    try:
        key = await installation.create_key("load")
        async with (
            Fleet(environment, folder, SERVICES) as fleet,
            Client(amqp_url, key, prefix=installation.names.prefix) as client,
        ):
            await eventually(lambda: asyncio.to_thread(all_ready, fleet), "the services are ready", every=0.2)
            load = _Load(plan, client, installation)
            await load.publish_backlog()
            async with Fleet(environment, folder, plan.worker_names, HANDLERS) as workers:
                await eventually(lambda: asyncio.to_thread(all_ready, workers), "the workers are ready", every=0.2)
                flood = await load.publish_higher()
        return measure(plan, _read(installation), flood)
    finally:
        await asyncio.to_thread(installation.remove)


class _Load:
    """What is published, in two parts."""

    def __init__(self, plan: Plan, client: Client, installation: Installation) -> None:
        self._plan = plan
        self._client = client
        self._installation = installation

    async def _publish(self, priority: str, name: str) -> None:
        await self._client.publish(TYPE, {"ms": self._plan.ms}, id=name, priority=priority)

    def _depth(self, *queues: str) -> int:
        return sum(map(self._installation.depth, queues))

    async def publish_backlog(self) -> None:
        """The lower jobs, until all of them lie in work queues."""
        for first in range(0, self._plan.backlog, 1_000):
            numbers = range(first, min(first + 1_000, self._plan.backlog))
            await asyncio.gather(*(self._publish(LOWER[n % 2], f"{LOWER[n % 2]}-{n}") for n in numbers))
        names = self._installation.names
        queues = [names.work_queue("default", priority) for priority in LOWER]
        await eventually(
            lambda: asyncio.to_thread(lambda: self._depth(*queues) == self._plan.backlog), "all are taken in", every=0.2
        )

    async def publish_higher(self) -> tuple[int, int]:
        """Single jobs, and the flood; returns when that began and ended, in milliseconds."""
        plan, names = self._plan, self._installation.names
        for number in range(plan.single):
            await self._publish(HIGHER[number % 2], f"single-{number}")
            await asyncio.sleep(plan.every)
        await _begun(self._installation, "single", plan.single)
        began = round(time.time() * 1000)
        await asyncio.gather(*(self._publish("high", f"flood-{n}") for n in range(plan.flood)))
        await _begun(self._installation, "flood", plan.flood)
        if not await asyncio.to_thread(self._depth, names.work_queue("default", "background")):
            raise click.ClickException("the backlog was over before the flood: take a larger --backlog")
        return began, round(time.time() * 1000)


async def _begun(installation: Installation, prefix: str, number: int) -> None:
    """Wait until so many jobs with this beginning of their ids have started, as history says."""
    where = {"_id": {"$regex": f"^load:{prefix}-"}, "attempts.0": {"$exists": True}}

    def all_have() -> bool:
        return int(installation.db.jobs.count_documents(where)) == number

    await eventually(lambda: asyncio.to_thread(all_have), f"the {prefix} jobs ran", timeout=300, every=0.1)


def _read(installation: Installation) -> list[Started]:
    """All that started, in its order."""
    fields = {"id": 1, "priority": 1, "accepted_at": 1, "attempts": 1}
    found = [
        Started(
            doc["id"],
            doc["priority"],
            round(doc["accepted_at"].timestamp() * 1000),
            round(doc["attempts"][0]["started_at"].timestamp() * 1000),
            doc["attempts"][0]["worker"],
        )
        for doc in installation.db.jobs.find({"attempts.0": {"$exists": True}}, fields)
    ]
    return sorted(found, key=lambda start: start.started)


def measure(plan: Plan, starts: Sequence[Started], flood: tuple[int, int]) -> dict[str, Any]:
    """The figures."""
    single = [start for start in starts if start.id.startswith("single-")]
    between = [
        sum(
            other.worker == start.worker and other.priority in LOWER and start.accepted < other.started < start.started
            for other in starts
        )
        for start in single
    ]
    ids = [start for start in starts if start.id.startswith("flood-")]
    # from when all of them waited until the first worker could have run out of them
    amid = [s for s in starts if max(x.accepted for x in ids) <= s.started <= ids[int(len(ids) * 0.8)].started]
    share = {p: round(sum(s.priority == p for s in amid) / len(amid), 4) for p in PRIORITIES}
    background = [s.started for s in amid if s.priority == "background"]
    return {
        "workers": plan.workers,
        "single": {
            "jobs": len(single),
            "wait_ms": _quantiles([s.started - s.accepted for s in single]),
            "lower_between": _quantiles(between),
        },
        "flood": {
            "jobs": len(ids),
            "starts": len(amid),
            "share": share,
            "lower": round(sum(s.priority in LOWER for s in amid) / len(amid), 4),
            "background_gap_ms": max((b - a for a, b in pairwise(background)), default=None),
            "wait_ms": _quantiles([s.started - s.accepted for s in ids]),
        },
        "lower": {"wait_ms": _quantiles([s.started - s.accepted for s in starts if s.priority in LOWER])},
        "seconds": round((flood[1] - flood[0]) / 1000, 1),
    }


def _quantiles(values: Sequence[int]) -> dict[str, int]:
    ordered = sorted(values) or [0]
    return {name: ordered[int(q * (len(ordered) - 1))] for name, q in (("p50", 0.5), ("p99", 0.99), ("max", 1.0))}


def good(figures: Mapping[str, Any]) -> bool:
    """Whether lower jobs got no more than their part, and got it."""
    flood = figures["flood"]
    most = MOST_LOWER + figures["workers"] / flood["starts"]  # each worker may begin the window with its tenth start
    return bool(flood["lower"] <= most and flood["lower"] >= MOST_LOWER / 2 and flood["share"]["background"] > 0)


def show(plan: Plan, figures: Mapping[str, Any]) -> str:
    """The figures for people."""
    single, flood = figures["single"], figures["flood"]

    def told(values: Mapping[str, int]) -> str:
        return ", ".join(f"{name} {value}" for name, value in values.items())

    rows = [
        ("workers, places, ms a job", f"{plan.workers}, {plan.places}, {plan.ms}"),
        ("backlog of low, background", str(plan.backlog)),
        ("higher jobs one by one", str(single["jobs"])),
        ("  wait in ms", told(single["wait_ms"])),
        ("  lower starts in between", told(single["lower_between"])),
        ("flood of high jobs", f"{flood['jobs']} in {figures['seconds']} s"),
        ("  starts of lower jobs", f"{flood['lower']:.1%} (at most {MOST_LOWER:.0%})"),
        ("  of low, of background", f"{flood['share']['low']:.1%}, {flood['share']['background']:.1%}"),
        ("  longest without background", f"{flood['background_gap_ms']} ms"),
    ]
    return "\n".join(f"{name:30} {value}" for name, value in rows)


@click.command()
@click.option("--workers", default=3, show_default=True, help="Worker processes.")
@click.option("--places", default=4, show_default=True, help="Jobs that each runs at once.")
@click.option("--ms", default=50, show_default=True, help="Length of a job.")
@click.option("--backlog", default=12_000, show_default=True, help="Low and background jobs.")
@click.option("--flood", default=3_000, show_default=True, help="High jobs published together.")
@click.option("--json", "as_json", is_flag=True, help="Print a JSON document.")
def main(workers: int, places: int, ms: int, backlog: int, flood: int, as_json: bool) -> None:
    """Publish a backlog of low and background jobs, and higher ones meanwhile; measure what started when."""
    plan = Plan(workers, places, ms, backlog, flood=flood)
    with own_servers() as (rabbit, mongo, folder):
        figures = asyncio.run(run(plan, rabbit.url, mongo.url, folder / "run"))
    print(json.dumps(figures) if as_json else show(plan, figures), flush=True)
    sys.exit(0 if good(figures) else 1)


if __name__ == "__main__":
    main()
