"""`make restore`: RabbitMQ and MongoDB are saved, go on, are destroyed and restored; what becomes of the jobs?

Both are saved while they are stopped, by a copy of their data folders, and jobs of every kind are on their way: done,
waiting, in the delay ladder, in MongoDB for their time, in groups, dead. What comes back differs (`RETURNS`): both
copies, no broker at all, the broker's copy beside the database of now, or the reverse. docs/backup.md tells the
operator the steps; this program takes them.
"""

from __future__ import annotations

import asyncio
import json
import shutil
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from itertools import count
from pathlib import Path
from typing import Any

import click

from dev.mongo import LocalMongo
from dev.rabbit import LocalRabbit
from dev.screenshots.management import Management
from dispatcher import Client
from dispatcher.core.lifecycle import FINAL
from schemas import JobState
from tests.faults.command import own_servers, progress
from tests.faults.executions import LEDGER_VARIABLE, Execution, by_step, read_executions
from tests.faults.fleet import Fleet
from tests.faults.ledger import Evidence, statistics_differ
from tests.faults.load import Published
from tests.faults.scrape import all_ready
from tests.processes import command, succeed
from tests.support import Installation, eventually

#: What comes back: of RabbitMQ and of MongoDB, the copy, what there was at the end (``now``), or nothing.
RETURNS = {
    "together": ("copy", "copy"),
    "broker-lost": ("nothing", "now"),
    "broker-older": ("copy", "now"),
    "database-older": ("now", "copy"),
}
#: Kinds of jobs in turn: type, payload and fields. Most wait when the copy is made.
KINDS: tuple[tuple[str, dict[str, Any], dict[str, Any]], ...] = (
    ("chaos.plain", {"ms": 5}, {"priority": "high"}),
    ("chaos.plain", {"ms": 200}, {}),
    ("chaos.plain", {"ms": 200}, {}),
    ("chaos.plain", {"ms": 200}, {"priority": "low"}),
    ("chaos.flaky", {"ms": 5, "failures": 2}, {"priority": "high", "retry": {"base": 4}}),
    ("chaos.hopeless", {"ms": 5}, {"priority": "high"}),
    ("chaos.plain", {"ms": 5}, {"delay": 45}),
    ("chaos.plain", {"ms": 5}, {"delay": 90}),
    ("chaos.plain", {"ms": 5}, {"group": {"key": "g", "max_wait": 60, "max_size": 1000}}),
)
#: Share of the jobs that have ended when the copy is made, and when everything is destroyed.
SAVED_AT, DESTROYED_AT = 0.3, 0.6
#: Longest wait for jobs to end, in seconds.
PATIENCE = 600.0
#: Longest wait for a server to start, or to stop in an orderly way, in seconds.
SERVER = 240.0
#: How often the queues are worked off at most before what is left is taken for lost.
ROUNDS = 5


@dataclass
class Site:
    """The servers, their data, and what was published."""

    rabbit: LocalRabbit
    mongo: LocalMongo
    folder: Path
    say: Callable[[str], None]
    acknowledged: set[str] = field(default_factory=set)
    numbers: Iterator[int] = field(default_factory=count)

    def __post_init__(self) -> None:
        """Its installation, on running servers."""
        self.installation = Installation.on(self.rabbit.url, self.mongo.url, "restore")
        self.lines = self.folder / "executions"
        self.lines.touch()

    def fleet(self, **settings: str) -> Fleet:
        """The services."""
        small = {"DISPATCHER_WORKER__CONCURRENCY": "8", "DISPATCHER_WORKER__READ_AHEAD": "8"}
        environment = self.installation.environment() | {LEDGER_VARIABLE: str(self.lines)} | small | settings
        return Fleet(environment, self.folder)

    def data(self, server: LocalRabbit | LocalMongo) -> Path:
        """Where a server keeps everything."""
        return self.folder.parent / ("rabbitmq" if server is self.rabbit else "mongo") / "data"

    def copy(self, server: LocalRabbit | LocalMongo) -> Path:
        """Where its copy is."""
        return self.folder / f"saved-{self.data(server).parent.name}"

    def restore(self, server: LocalRabbit | LocalMongo, what: str) -> None:
        """Put the copy, or nothing, in place of a server's data."""
        if what == "now":
            return
        shutil.rmtree(self.data(server))
        if what == "copy":
            shutil.copytree(self.copy(server), self.data(server))
        else:
            self.data(server).mkdir()

    def start_servers(self) -> None:
        """Start both and wait until they can be used."""
        for server in (self.rabbit, self.mongo):
            server.start()
        for server in (self.rabbit, self.mongo):
            server.wait_ready(SERVER)

    def executions(self) -> list[Execution]:
        """What the handlers wrote."""
        return list(read_executions(self.lines))

    def states(self) -> dict[str, str]:
        """The states of all jobs by id, but for refusals."""
        found = self.installation.db.jobs.find({"state": {"$ne": "rejected"}}, {"id": 1, "state": 1})
        return {doc["id"]: doc["state"] for doc in found}

    def ended(self) -> set[str]:
        """The jobs that history calls finished."""
        return {job for job, state in self.states().items() if JobState(state) in FINAL}


async def publish(site: Site, key: str, jobs: int) -> set[str]:
    """Publish so many jobs of all kinds; returns the ids of those that the broker has confirmed."""
    prefix = site.installation.names.prefix
    async with Client(site.rabbit.url, key, prefix=prefix) as client:
        numbers = [next(site.numbers) for _ in range(jobs)]
        calls = [(*KINDS[number % len(KINDS)], f"r-{number}") for number in numbers]
        sent = [client.publish(kind, payload, id=job, **fields) for kind, payload, fields, job in calls]
        confirmed = set(await asyncio.gather(*sent))
    site.acknowledged |= confirmed
    return confirmed


async def until_ended(site: Site, wanted: int, what: str) -> None:
    """Wait until so many jobs have ended."""

    def enough() -> bool:
        ended = len(site.ended())
        site.say(f"{what}: {ended} of {wanted} jobs ended")
        return ended >= wanted

    await eventually(lambda: asyncio.to_thread(enough), what, timeout=PATIENCE, every=0.3)


async def rehearse(site: Site, returns: tuple[str, str], jobs: int) -> dict[str, Any]:
    """Save, go on, destroy, restore, and look; returns the figures."""
    installation = site.installation
    await asyncio.to_thread(installation.apply)
    key, leaked = await installation.create_key("shop"), await installation.create_key("shop")
    async with site.fleet() as fleet:
        await eventually(
            lambda: asyncio.to_thread(all_ready, fleet), "the services are ready", timeout=SERVER, every=0.2
        )
        before = await publish(site, key, jobs)
        await until_ended(site, round(jobs * SAVED_AT), "before the copy")
    figures = await asyncio.to_thread(save, site)
    done_before = site.ended()
    async with site.fleet() as fleet:
        later = await publish(site, key, jobs)
        revoked = leaked.split("_")[2]
        await succeed(installation, "keys", "revoke", revoked)
        newer = await installation.create_key("shop")
        await until_ended(site, round(2 * jobs * DESTROYED_AT), "after the copy")
        site.rabbit.kill()
        for name in fleet.members:
            fleet.members[name].away = True
    site.mongo.kill()
    known = {"before": before, "after": later, "done_before": done_before}
    figures |= await asyncio.to_thread(bring_back, site, returns)
    figures |= await go_on(site, returns, known)
    figures["keys"] = await try_keys(site, {"kept": key, "revoked since": leaked, "made since": newer})
    return figures


def save(site: Site) -> dict[str, Any]:
    """Copy both servers' data while they are stopped; returns the sizes, and for how long nothing ran."""
    began = time.monotonic()
    site.rabbit.stop(SERVER)
    site.mongo.stop(SERVER)
    sizes = {}
    for server in (site.rabbit, site.mongo):
        shutil.copytree(site.data(server), site.copy(server))
        files = [file for file in site.copy(server).rglob("*") if file.is_file()]
        sizes[server.what] = sum(file.stat().st_size for file in files)
    site.start_servers()
    return {"copy_seconds": round(time.monotonic() - began, 1), "copy_bytes": sizes}


def bring_back(site: Site, returns: tuple[str, str]) -> dict[str, Any]:
    """Put the servers' data in place and start them."""
    began = time.monotonic()
    for server, what in zip((site.rabbit, site.mongo), returns, strict=True):
        site.restore(server, what)
    site.start_servers()
    site.installation.apply()
    return {"restore_seconds": round(time.monotonic() - began, 1)}


async def go_on(site: Site, returns: tuple[str, str], known: dict[str, set[str]]) -> dict[str, Any]:
    """Let everything end, as docs/backup.md says for what came back; returns what became of the jobs."""
    destroyed = time.time()
    in_history = set(site.states())
    done = site.ended()
    ask = {"DISPATCHER_WORKER__ASK_HISTORY_FIRST": "true"} if returns == ("copy", "now") else {}
    republished = await republish(site, ask, worked_off=returns == ("nothing", "now"))
    async with site.fleet():
        await until_ended(site, len(site.states()) - republished["impossible"], "after the restore")
        statistics = await succeed(site.installation, "stats", "--json")
        doctor = await succeed(site.installation, "doctor", "--json")
    steps = by_step(site.executions()).values()
    again = {e.job for each in steps for e in each[1:] if e.started > destroyed}
    evidence = Evidence(Published(), [], list(site.installation.db.jobs.find()), statistics=statistics.json)
    return {
        "before": len(known["before"]),
        "before_lost": len(known["before"] - site.ended()),
        "after": len(known["after"]),
        "after_unknown": len(known["after"] - site.ended()),
        "in_history_lost": len(in_history - site.ended()),
        "republished": republished["started"],
        "without_payload": republished["impossible"],
        "run_again_ended_before_copy": len(again & known["done_before"]),
        "run_again_ended_in_history": len(again & done),
        "run_again": len(again),
        "statistics_differ": len(statistics_differ(evidence)),
        "doctor": dict(Counter(check["status"] for check in doctor.json)),
    }


async def republish(site: Site, ask: dict[str, str], worked_off: bool) -> dict[str, Any]:
    """Let the services work the queues off, then publish what no broker holds; returns what the command did.

    It refuses while a queue holds something, which the management API, some seconds behind, may not have told.
    """
    for _ in range(ROUNDS):
        if not worked_off:
            async with site.fleet(**ask):
                await until_quiet(site)
        # exit code 1 also where history lacks the payload of some: those cannot be published
        done = await command(site.installation, "jobs", "republish", "--all", "--yes", "--json")
        if done.out:
            return dict(done.json)
    raise click.ClickException(f"the queues do not become empty: {done.err}")


async def until_quiet(site: Site) -> None:
    """Wait until no queue on a job's way holds anything, with the services at work."""
    names, api = site.installation.names, Management(site.rabbit.management_url, "guest", "guest")
    aside = (names.rejected, names.unrecorded, names.parked("default"))

    def empty() -> bool:
        counts = api.call("queues?columns=name,messages")
        full = [q["name"] for q in counts if q.get("messages", 1) and q["name"].startswith(names.prefix)]
        full = [name for name in full if name not in aside]
        site.say(f"waiting for {', '.join(full)[:100]}")
        return not full

    await eventually(lambda: asyncio.to_thread(empty), "the queues are empty", timeout=PATIENCE, every=2)


async def try_keys(site: Site, tried: dict[str, str]) -> dict[str, str]:
    """What intake says to each key now."""
    found = {}
    async with site.fleet() as fleet:
        await eventually(
            lambda: asyncio.to_thread(all_ready, fleet), "the services are ready", timeout=SERVER, every=0.2
        )
        for name, key in tried.items():
            async with Client(site.rabbit.url, key, prefix=site.installation.names.prefix) as client:
                receipt = await client.submit("chaos.plain", {"ms": 1})
            found[name] = "accepted" if receipt.accepted else str(receipt.code)
    return found


def good(name: str, figures: dict[str, Any]) -> bool:
    """Whether what is promised for this return was kept."""
    wrong = figures["before_lost"] + figures["in_history_lost"] + figures["statistics_differ"]
    wrong += figures["run_again_ended_before_copy"]
    wrong += figures["run_again_ended_in_history"] if name != "database-older" else 0
    wrong += figures["doctor"].get("failed", 0) + (figures["keys"]["kept"] != "accepted")
    restored_keys = RETURNS[name][1] == "copy"
    wrong += (figures["keys"]["revoked since"] == "accepted") != restored_keys
    wrong += (figures["keys"]["made since"] == "accepted") == restored_keys
    return not wrong


@click.command()
@click.option("--what", type=click.Choice([*RETURNS]), multiple=True, help="What comes back; without it, each in turn.")
@click.option("--jobs", default=600, show_default=True, help="Jobs before the copy, and as many after it.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON document.")
def main(what: tuple[str, ...], jobs: int, as_json: bool) -> None:
    """Save RabbitMQ and MongoDB, go on, destroy and restore them on servers of its own; what became of the jobs?"""
    results: dict[str, dict[str, Any]] = {}
    for name in what or RETURNS:
        with own_servers() as (rabbit, mongo, folder):
            site = Site(rabbit, mongo, folder / "run", progress())
            results[name] = asyncio.run(rehearse(site, RETURNS[name], jobs))
        results[name]["good"] = good(name, results[name])
        if not as_json:
            print(f"\n{name}", *(f"  {field_name:28} {value}" for field_name, value in results[name].items()), sep="\n")
    if as_json:
        print(json.dumps(results))
    sys.exit(0 if all(figures["good"] for figures in results.values()) else 1)


if __name__ == "__main__":
    main()
