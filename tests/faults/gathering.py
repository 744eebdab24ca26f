"""`make groups`: a hundred thousand members of a thousand groups, while dispatchers and the broker are killed.

Members of all groups are published in turn, so that many groups are open at any time. Dispatchers are killed one after
another, one is frozen until another has its partitions and then woken, and RabbitMQ is killed. Then the account: what
the handlers wrote, what history says, and whether each member was in exactly one batch that ended, or in a retry of its
own.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import json
import logging
import random
import sys
import time
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import click

from dev.rabbit import LocalRabbit
from dispatcher import Client
from dispatcher.core.topology import PARTITIONS
from tests.faults.command import fresh, own_servers, progress
from tests.faults.executions import LEDGER_VARIABLE
from tests.faults.faults import DECLARED, HEARTBEAT, STARTED
from tests.faults.fleet import Fleet
from tests.faults.group_handlers import TYPE
from tests.faults.scrape import all_ready
from tests.support import Installation, eventually

HANDLERS = "tests.faults.group_handlers:jobs"
INTAKES = ("intake-1", "intake-2", "intake-3")
MEMBERS = (*INTAKES, "recorder-1", "worker-1", "worker-2")
#: Publishes under way at once.
IN_FLIGHT = 500
#: Of so many members one fails its first attempt.
FAILING = 50
#: Groups that are gathered before all that, while nothing else happens, and members of each.
QUIET, OF_EACH = 20, 5


@dataclass(frozen=True)
class Plan:
    """How many members of how many groups, how large a batch may be, and how long it waits, in seconds."""

    members: int = 100_000
    groups: int = 1_000
    max_size: int = 100
    max_wait: float = 5.0
    #: Seconds between two faults; 0: none at all.
    gap: float = 4.0
    seed: int = 1
    #: So many faults at least, whenever all is published.
    faults: int = 0
    #: How late a flush may be in the quiet, in milliseconds: from the end of ``max_wait`` to the start of the handler.
    late: float = 100


@dataclass
class Account:
    """What was seen: documents by id, calls of the handlers, faults, and the time that all took in seconds."""

    plan: Plan
    acknowledged: set[str]
    documents: list[dict[str, Any]]
    calls: list[dict[str, Any]]
    left: dict[str, int]
    faults: Counter[str]
    seconds: float
    late_ms: list[float] = field(default_factory=list)


def judge(account: Account) -> dict[str, list[str]]:
    """What does not fit, by check."""
    found: dict[str, list[str]] = defaultdict(list)
    by_id = {doc["id"]: doc for doc in account.documents}
    found["lost"] += [job for job in account.acknowledged if job not in by_id]
    found["left over"] += [f"{count} in {queue}" for queue, count in account.left.items() if count]
    recorded: set[str] = set()
    for doc in account.documents:
        ended = [attempt for attempt in doc["attempts"] if attempt["outcome"] is not None]
        recorded |= {attempt["execution"] for attempt in doc["attempts"]}
        if doc["state"] != "succeeded":
            found["not final"].append(f"{doc['id']} is {doc['state']}")
        outcomes = Counter((attempt["n"], attempt["outcome"]) for attempt in ended)
        wanted = {(1, "failed"), (2, "succeeded")} if doc["payload"].get("fails") else {(1, "succeeded")}
        if set(outcomes) != wanted:
            found["wrong attempts"].append(f"{doc['id']}: {dict(outcomes)}")
        if any("batch" in attempt for attempt in ended if attempt["n"] > 1):
            found["not retried alone"].append(doc["id"])
        if "batch" not in doc:
            found["without a batch"].append(doc["id"])
    executed = Counter(job for call in account.calls for job, _ in call["executions"])
    known = {execution for call in account.calls for _, execution in call["executions"]}
    found["unknown to history"] += sorted(known - recorded)
    found["never executed"] += [job for job in by_id if not executed[job]]
    found["batch run twice"] += [batch for batch, n in _runs(account.calls).items() if n > 1]
    found["executed twice"] += twice(account)
    found["late in the quiet"] += [f"{late:.0f} ms" for late in account.late_ms if late > account.plan.late]
    return {check: values for check, values in found.items() if values}


def _runs(calls: Iterable[Mapping[str, Any]]) -> Counter[str]:
    return Counter(call["batch"] for call in calls if len(call["executions"]) > 1)


def twice(account: Account) -> list[str]:
    """Members of which an attempt was executed more than once."""
    wanted = {doc["id"]: 2 if doc["payload"].get("fails") else 1 for doc in account.documents}
    executed = Counter(job for call in account.calls for job, _ in call["executions"])
    return [job for job, n in executed.items() if n > wanted.get(job, 0)]


async def run(
    plan: Plan, rabbit: LocalRabbit | None, installation: Installation, folder: Path, say: Callable[[str], None]
) -> Account:
    """Do it on an installation with its topology applied; without a ``rabbit`` that may be killed, without that."""
    key, ledger, began = await installation.create_key("load"), folder / "executions", time.monotonic()
    environment = installation.environment() | {
        LEDGER_VARIABLE: str(ledger),
        "DISPATCHER_AMQP__HEARTBEAT": str(HEARTBEAT),
        "DISPATCHER_LOG__LEVEL": "info",
        "DISPATCHER_LOG__FORMAT": "json",
    }
    faults: Counter[str] = Counter()
    await asyncio.sleep(DECLARED)
    async with (
        Fleet(environment, folder, MEMBERS, HANDLERS) as fleet,
        Client(installation.amqp_url, key, prefix=installation.names.prefix) as client,
    ):
        await eventually(lambda: asyncio.to_thread(all_ready, fleet), "the services are ready", every=0.2)
        late = await _quiet(installation, client)
        acknowledged: set[str] = set()
        published = asyncio.Event()
        trouble = asyncio.create_task(_trouble(plan, fleet, rabbit, faults, published))
        try:
            await _publish(plan, client, acknowledged, say)
        finally:
            published.set()
            await trouble  # what is under way is undone
        await eventually(
            lambda: asyncio.to_thread(_all_final, installation, plan, say),
            "all are final",
            timeout=240 + plan.members / 200,
            every=0.5,
        )
        left = await eventually(
            lambda: asyncio.to_thread(_nothing_left, installation), "no queue holds anything", every=0.5
        )
    lines = (await asyncio.to_thread(ledger.read_text)).splitlines()
    documents = await asyncio.to_thread(lambda: list(installation.db.jobs.find()))
    return Account(
        plan,
        acknowledged,
        documents,
        [json.loads(line) for line in lines],
        left,
        faults,
        time.monotonic() - began,
        late,
    )


async def _quiet(installation: Installation, client: Client) -> list[float]:
    """Gather some groups while nothing else happens; how late each was, in milliseconds."""
    waits = [0.1 + 1.9 * n / QUIET for n in range(QUIET)]
    for n, wait in enumerate(waits):
        group = {"key": f"quiet-{n}", "max_size": 1_000, "max_wait": wait}
        await asyncio.gather(*(client.publish(TYPE, id=f"q-{n}-{i}", group=group) for i in range(OF_EACH)))
    await eventually(
        lambda: installation.db.jobs.count_documents({"state": "succeeded"}) == QUIET * OF_EACH, "they are gathered"
    )
    found = []
    for n, wait in enumerate(waits):
        documents = list(installation.db.jobs.find({"group.key": f"quiet-{n}"}))
        first = min(document["accepted_at"] for document in documents)
        started = min(document["attempts"][0]["started_at"] for document in documents)
        found.append((started - first).total_seconds() * 1000 - wait * 1000)
    return found


async def _publish(plan: Plan, client: Client, acknowledged: set[str], say: Callable[[str], None]) -> None:
    """One member of each group after another."""
    numbers = iter(range(plan.members))

    async def some() -> None:
        for number in numbers:
            name = f"m-{number}"
            group = {"key": f"g-{number % plan.groups}", "max_size": plan.max_size, "max_wait": plan.max_wait}
            payload = {"fails": True} if number % FAILING == 0 else {}
            await client.publish(TYPE, payload, id=name, group=group)
            acknowledged.add(name)
            if len(acknowledged) % 1_000 == 0:
                say(f"{len(acknowledged)} of {plan.members} members published")

    await asyncio.gather(*(some() for _ in range(IN_FLIGHT)))


async def _trouble(plan: Plan, fleet: Fleet, rabbit: LocalRabbit, faults: Counter[str], over: asyncio.Event) -> None:
    """Kill dispatchers in turn, freeze one for longer than the broker waits, kill the broker."""
    chance = random.Random(plan.seed)
    for turn in itertools.count():
        pause = plan.gap * chance.uniform(0.5, 1.5)
        if over.is_set() and turn < plan.faults:
            await asyncio.sleep(pause)
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(over.wait(), pause if plan.gap else None)
        if over.is_set() and turn >= plan.faults:
            return
        target, what = INTAKES[turn % len(INTAKES)], chance.choices(("broker", "frozen", "killed"), (2, 1, 3))[0]
        if what == "broker" and rabbit is not None:
            faults["broker killed"] += 1
            await asyncio.to_thread(rabbit.kill)
            rabbit.start()
            await asyncio.to_thread(rabbit.wait_ready, 120)
            await asyncio.sleep(STARTED)
        elif what == "frozen":
            faults["dispatcher frozen"] += 1
            fleet.freeze(target)
            try:
                await asyncio.sleep(3.5 * HEARTBEAT)  # two heartbeats and more: the broker has given it up
            finally:
                fleet.thaw(target)
        else:
            faults["dispatcher killed"] += 1
            await asyncio.to_thread(fleet.kill, target)
            fleet.start(target)


def _all_final(installation: Installation, plan: Plan, say: Callable[[str], None]) -> bool:
    final = int(installation.db.jobs.count_documents({"state": "succeeded"}))
    wanted = plan.members + QUIET * OF_EACH
    say(f"{final} of {wanted} members succeeded")
    return final == wanted


def _nothing_left(installation: Installation) -> dict[str, int] | None:
    names = installation.names
    queues = [names.intake, names.intake_deferred, names.history, names.work_queue("default", "normal")]
    queues += [names.group(partition) for partition in range(PARTITIONS)]
    depths = {queue: installation.depth(queue) for queue in queues}
    return None if any(depths.values()) else depths


def show(account: Account, wrong: Mapping[str, list[str]]) -> str:
    """The account for people."""
    sizes = sorted(len(call["executions"]) for call in account.calls if call["batch"] and len(call["executions"]) > 1)
    alone = sum(len(call["executions"]) == 1 for call in account.calls)
    rows = [
        ("members", f"{len(account.documents)} of {account.plan.groups} groups"),
        ("faults", ", ".join(f"{n} x {name}" for name, n in sorted(account.faults.items())) or "none"),
        ("batches of several", f"{len(sizes)}, {sizes[0] if sizes else 0} to {sizes[-1] if sizes else 0} members"),
        ("calls with one member", f"{alone} (each {FAILING}th member is retried alone)"),
        (
            "late in the quiet",
            f"at most {max(account.late_ms):.0f} ms (of {QUIET} groups; at most {account.plan.late:g})",
        ),
        ("seconds", f"{account.seconds:.0f}"),
        *((f"WRONG: {check}", f"{len(found)}: {', '.join(found[:3])}") for check, found in wrong.items()),
        ("verdict", "clean" if not wrong else "NOT CLEAN"),
    ]
    return "\n".join(f"{name:24} {value}" for name, value in rows)


@click.command()
@click.option("--members", default=100_000, show_default=True, help="Members of all groups.")
@click.option("--groups", default=1_000, show_default=True, help="Groups.")
@click.option("--gap", default=4.0, show_default=True, help="Seconds between two faults; 0: none.")
@click.option("--seed", default=1, show_default=True, help="Chooses when what is done.")
@click.option("--keep", type=click.Path(path_type=Path, file_okay=False), help="Folder for the logs of the run.")
@click.option("--json", "as_json", is_flag=True, help="Print a JSON document.")
def main(members: int, groups: int, gap: float, seed: int, keep: Path | None, as_json: bool) -> None:
    """Publish members of many groups on servers of its own while dispatchers and broker are killed; settle accounts."""
    plan = Plan(members, groups, max_size=max(members // groups, 1), gap=gap, seed=seed)
    with own_servers() as (rabbit, mongo, folder):
        logging.basicConfig(filename=folder / "run" / "harness.log", level=logging.WARNING, force=True)
        installation = Installation.on(rabbit.url, mongo.url, "groups")
        installation.apply()
        account = asyncio.run(run(plan, rabbit, installation, folder / "run", progress()))
        if keep is not None:
            (folder / "run").rename(fresh(keep, "groups"))
    wrong = judge(account)
    figures = {"members": len(account.documents), "faults": account.faults, "seconds": account.seconds}
    figures |= {"late_ms": account.late_ms, "wrong": wrong}
    print(json.dumps(figures) if as_json else show(account, wrong), flush=True)
    sys.exit(1 if wrong else 0)


if __name__ == "__main__":
    main()
