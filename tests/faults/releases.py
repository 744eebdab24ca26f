"""`make releases`: a hundred thousand jobs with long delays, due in the same second; how fast do they come?

They lie in ``scheduled.v1``, as intake leaves them. Schedulers keep them in MongoDB and release them; who consumes the
work queue notes when each arrives, and whether it was due. Meanwhile plain jobs are published to intake: nobody else's
job may be held up.
"""

from __future__ import annotations

import asyncio
import json
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path
from typing import Any

import click

from dispatcher import Client
from dispatcher.core import ladder
from dispatcher.edges import clock
from dispatcher.edges.amqp import Consumer, Delivery, Outgoing, Publisher, Subscription
from dispatcher.edges.amqp.publisher import AGAIN_HEADER
from schemas import WorkMessage
from tests.faults.command import own_servers, progress
from tests.faults.fleet import Fleet
from tests.faults.scrape import all_ready
from tests.support import Installation, eventually

TYPE, PLAIN_TYPE = "load.released", "load.plain"
#: Messages published together, and held unacknowledged by who watches the work queue.
BATCH = 2_000
#: Seconds between two plain jobs.
EVERY = 0.05
#: What is promised, in seconds: the longest time without an arrival while some are due, and the wait of 99% of the
#: plain jobs.
STALL, PLAIN = 2.0, 1.0


@dataclass(frozen=True)
class Plan:
    """How many jobs and schedulers; the jobs are due so many seconds after the first is published.

    All should be kept before the schedulers begin to release them, 20 s (`LEAD` of the agenda) before they are due.
    """

    jobs: int = 100_000
    schedulers: int = 3
    ahead: float = 90.0


@dataclass
class Seen:
    """What arrived in the work queue; times in milliseconds since the epoch."""

    arrivals: dict[str, float] = field(default_factory=dict)
    twice: list[str] = field(default_factory=list)
    unmarked: int = 0
    early: int = 0
    plain_ms: list[float] = field(default_factory=list)

    def note(self, delivery: Delivery) -> None:
        """A message came."""
        now, work = clock.now_ms(), WorkMessage.decode(delivery.body)
        if work.type == PLAIN_TYPE:
            self.plain_ms.append(now - work.accepted_at)
            return
        if work.id in self.arrivals:
            self.twice.append(work.id)
            self.unmarked += AGAIN_HEADER not in delivery.headers
        else:
            self.arrivals[work.id] = now
        # a worker keeps for that long what left the ladder before its time
        self.early += now + ladder.remaining_ms(delivery.routing_key, work.due_at, now) < (work.due_at or 0)


async def measure(installation: Installation, folder: Path, plan: Plan, say: Callable[[str], None]) -> dict[str, Any]:
    """Do it on an installation with its topology applied; returns the figures."""
    names, url = installation.names, installation.amqp_url
    members = ["intake-1", *(f"scheduler-{n}" for n in range(1, plan.schedulers + 1))]
    key = await installation.create_key("load")
    async with (
        Fleet(installation.environment(), folder, members) as fleet,
        Client(url, key, prefix=names.prefix) as client,
    ):
        await eventually(lambda: asyncio.to_thread(all_ready, fleet), "the services are ready", every=0.2)
        began, due_at = time.monotonic(), round((time.time() + plan.ahead) * 1000)
        await _publish(url, names.scheduled, plan.jobs, due_at)
        await _kept(installation, plan.jobs, say)
        keeping = time.monotonic() - began
        if time.time() * 1000 > due_at:
            raise click.ClickException(f"kept only after {keeping:.0f} s: take a longer --ahead")
        seen = await _watch(client, url, names.work_queue("default", "normal"), plan.jobs, due_at, say)
        left = await asyncio.to_thread(installation.db.scheduled.count_documents, {"state": {"$ne": "released"}})
    return _figures(plan, seen, due_at, keeping, left)


async def _publish(url: str, queue: str, jobs: int, due_at: int) -> None:
    """What intake publishes of jobs with long delays."""
    publisher = Publisher(url, "releases")
    await publisher.start()
    try:
        await eventually(lambda: publisher.ready, "the connection stands")
        for first in range(0, jobs, BATCH):
            works = [_work(number, due_at) for number in range(first, min(first + BATCH, jobs))]
            assert not await publisher.publish([Outgoing("", queue, work.encode()) for work in works])
    finally:
        await publisher.close()


def _work(number: int, due_at: int) -> WorkMessage:
    return WorkMessage(
        app="load", id=f"r-{number}", type=TYPE, lane="default", priority="normal", accepted_at=due_at - 3_600_000,
        payload={"number": number}, due_at=due_at,
    )  # fmt: skip


async def _kept(installation: Installation, jobs: int, say: Callable[[str], None]) -> None:
    def all_are() -> bool:
        kept = int(installation.db.scheduled.estimated_document_count())
        say(f"{kept} of {jobs} jobs kept")
        return kept == jobs

    await eventually(lambda: asyncio.to_thread(all_are), "all are kept", timeout=600, every=0.2)


async def _watch(client: Client, url: str, queue: str, jobs: int, due_at: int, say: Callable[[str], None]) -> Seen:
    """Take what comes out of the work queue until all have come, while plain jobs are published."""
    seen = Seen()

    def noted(delivery: Delivery) -> None:
        seen.note(delivery)
        watcher.done(delivery)

    async def acknowledging() -> None:
        while True:
            await watcher.flush()
            await asyncio.sleep(0.01)

    async def plain() -> None:
        while True:
            await client.publish(PLAIN_TYPE, {})
            await asyncio.sleep(EVERY)

    def all_came() -> bool:
        say(f"{len(seen.arrivals)} of {jobs} jobs came")
        return len(seen.arrivals) == jobs

    watcher = Consumer(url, "releases", [Subscription(queue, BATCH)], noted)
    await watcher.start()
    beside = [asyncio.create_task(acknowledging()), asyncio.create_task(plain())]
    try:
        ahead = max(due_at / 1000 - time.time(), 0)
        await eventually(all_came, "all jobs came", timeout=ahead + 60 + jobs / 200, every=0.1)
    finally:
        for task in beside:
            task.cancel()
        await asyncio.gather(*beside, return_exceptions=True)
        await watcher.close()
    return seen


def _figures(plan: Plan, seen: Seen, due_at: int, keeping: float, left: int) -> dict[str, Any]:
    late = sorted(max(0.0, at - due_at) for at in seen.arrivals.values())
    pauses = [later - earlier for earlier, later in pairwise([0.0, *late])]
    plain = sorted(seen.plain_ms)
    return {
        "jobs": plan.jobs,
        "schedulers": plan.schedulers,
        "kept_per_second": round(plan.jobs / keeping),
        "released_per_second": round(plan.jobs / max(late[-1] / 1000, 0.001)),
        "late_ms": _quantiles(late),
        "longest_pause_ms": round(max(pauses)),
        "early": seen.early,
        "twice": len(seen.twice),
        "twice_unmarked": seen.unmarked,
        "left": left,
        "plain": {"jobs": len(plain), "wait_ms": _quantiles(plain)},
    }


def _quantiles(ordered: Sequence[float]) -> dict[str, int]:
    values = ordered or [0.0]
    return {name: round(values[int(q * (len(values) - 1))]) for name, q in (("p50", 0.5), ("p99", 0.99), ("max", 1.0))}


def good(figures: Mapping[str, Any]) -> bool:
    """Whether nothing stalled, was early, was left over, or came twice without saying so."""
    wrong = figures["early"] + figures["twice_unmarked"] + figures["left"]
    fast = figures["longest_pause_ms"] <= STALL * 1000 and figures["plain"]["wait_ms"]["p99"] <= PLAIN * 1000
    return bool(wrong == 0 and fast and figures["plain"]["jobs"])


def show(figures: Mapping[str, Any]) -> str:
    """The figures for people."""

    def told(values: Mapping[str, int]) -> str:
        return ", ".join(f"{name} {value}" for name, value in values.items())

    rows = [
        ("jobs due in one second", f"{figures['jobs']}, {figures['schedulers']} schedulers"),
        ("kept in MongoDB", f"{figures['kept_per_second']} a second"),
        ("arrived in the work queue", f"{figures['released_per_second']} a second from when they are due"),
        ("  ms after that", told(figures["late_ms"])),
        ("  longest pause", f"{figures['longest_pause_ms']} ms (at most {STALL * 1000:.0f})"),
        ("  early, left over", f"{figures['early']}, {figures['left']}"),
        ("  twice, of that unmarked", f"{figures['twice']}, {figures['twice_unmarked']}"),
        ("plain jobs meanwhile", str(figures["plain"]["jobs"])),
        ("  wait in ms", f"{told(figures['plain']['wait_ms'])} (p99 at most {PLAIN * 1000:.0f})"),
    ]
    return "\n".join(f"{name:27} {value}" for name, value in rows)


async def on_servers(
    amqp_url: str, mongo_url: str, folder: Path, plan: Plan, say: Callable[[str], None]
) -> dict[str, Any]:
    """Measure on an installation of its own on these servers."""
    installation = Installation.on(amqp_url, mongo_url, "releases")
    await asyncio.to_thread(installation.apply)
    try:
        return await measure(installation, folder, plan, say)
    finally:
        await asyncio.to_thread(installation.remove)


@click.command()
@click.option("--jobs", default=100_000, show_default=True, help="Jobs that are due in the same second.")
@click.option("--schedulers", default=3, show_default=True, help="Scheduler processes.")
@click.option("--ahead", default=90.0, show_default=True, help="Seconds until then from the first publish.")
@click.option("--json", "as_json", is_flag=True, help="Print a JSON document.")
def main(jobs: int, schedulers: int, ahead: float, as_json: bool) -> None:
    """Put off many jobs until one second on servers of its own; measure how they come, and what waits meanwhile."""
    plan = Plan(jobs, schedulers, ahead)
    with own_servers() as (rabbit, mongo, folder):
        figures = asyncio.run(on_servers(rabbit.url, mongo.url, folder / "run", plan, progress()))
    print(json.dumps(figures) if as_json else show(figures), flush=True)
    sys.exit(0 if good(figures) else 1)


if __name__ == "__main__":
    main()
