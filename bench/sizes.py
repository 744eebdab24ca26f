"""What a job takes: bytes in MongoDB, in RabbitMQ and in our processes. Prints a table a place.

    python -m bench.sizes [--jobs N] [--queued N] [--json FILE]

Servers of its own, each in a folder of its own, so that their files can be counted. Sizes hardly depend on the
machine's speed, so it may run beside other work.
"""

from __future__ import annotations

import asyncio
import json
import os
import random
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import click
import httpx
from rich.console import Console
from rich.table import Table

from bench import ours, work
from bench.processes import BenchError, server_pid
from bench.servers import Servers
from dev.servers import LocalMongo, LocalRabbit
from dev.signals import ending_unwinds
from dispatcher import Client

IN_FLIGHT = 200
#: Seconds for a server to start, and for jobs to go through.
PATIENCE = 600.0
#: The lane that no worker serves.
IDLE = "idle"
_FIXED = random.Random(7)
_WORDS = [f"{_FIXED.randrange(16**3, 16**8):x}" for _ in range(1000)]  # of 4 to 8 letters

#: What a kind of job publishes, by its number: type, payload, fields.
Job = tuple[str, dict[str, Any], dict[str, Any]]
Row = dict[str, Any]


def text(length: int) -> str:
    """Letters that compress as prose does: words out of a thousand."""
    return " ".join(_FIXED.choices(_WORDS, k=length // 4))[:length]


KINDS: dict[str, Callable[[int], Job]] = {
    "succeeds at once, payload of 230 bytes": lambda n: ("bench.tiny", work.payload(n), {}),
    "the same, payload of 4 KiB": lambda n: ("bench.tiny", {**work.payload(n), "text": text(3_850)}, {}),
    "fails once, then succeeds": lambda n: ("bench.flaky", work.payload(n), {"retry": {"base": 0.125}}),
    "refused (unknown field)": lambda n: ("bench.tiny", work.payload(n), {"payloud": 1}),
}
WAITING: Callable[[int], Job] = lambda n: ("bench.tiny", work.payload(n), {"delay": 86_400})  # noqa: E731
QUEUED: dict[str, Callable[[int], Job]] = {
    "payload of 230 bytes": lambda n: ("bench.tiny", work.payload(n), {"lane": IDLE}),
    "payload of 4 KiB": lambda n: ("bench.tiny", {**work.payload(n), "text": text(3_850)}, {"lane": IDLE}),
}


async def publish(client: Client, job: Callable[[int], Job], count: int) -> None:
    """So many jobs of a kind, with a bounded number in flight."""
    numbers: Iterator[int] = iter(range(count))

    async def some() -> None:
        for number in numbers:
            job_type, payload, fields = job(number)
            await client.publish(job_type, payload, **fields)

    await asyncio.gather(*(some() for _ in range(IN_FLIGHT)))


def wait(what: str, condition: Callable[[], bool], installation: ours.Installation) -> None:
    """Until the condition holds, ten minutes at most."""
    deadline = time.monotonic() + PATIENCE
    while not condition():
        installation.check()
        if time.monotonic() > deadline:
            raise BenchError(f"not within ten minutes: {what}")
        time.sleep(0.2)


def taken(db: Any, name: str) -> tuple[int, int]:
    """Bytes in use in the files of a collection after a checkpoint: its documents, its indexes.

    Blocks that are free again do not count: how many there are depends on how often a checkpoint came meanwhile.
    """
    db.client.admin.command("fsync")
    stats = db.command("collStats", name)
    return in_use(stats["wiredTiger"]), sum(map(in_use, stats["indexDetails"].values()))


def in_use(details: dict[str, Any]) -> int:
    """Bytes of a file of WiredTiger that hold something."""
    file = details["block-manager"]
    return int(file["file size in bytes"] - file["file bytes available for reuse"])


async def documents(installation: ours.Installation, client: Client, count: int) -> list[Row]:
    """Bytes a job in MongoDB, by kind."""
    db, rows = installation.jobs.database, []
    final = {"finished_at": {"$ne": None}}
    for kind, job in KINDS.items():
        before, there = taken(db, "jobs"), db.jobs.count_documents(final)
        await publish(client, job, count)
        await asyncio.to_thread(
            wait, kind, lambda there=there: db.jobs.count_documents(final) >= there + count, installation
        )
        after = taken(db, "jobs")
        newest = [{"$sort": {"accepted_at": -1}}, {"$limit": count}]
        (size,) = db.jobs.aggregate([*newest, {"$group": {"_id": None, "bytes": {"$avg": {"$bsonSize": "$$ROOT"}}}}])
        disk, indexes = ((now - then) / count for now, then in zip(after, before, strict=True))
        rows.append({"job": kind, "document": size["bytes"], "on disk": disk, "indexes": indexes})
    return rows


async def others(installation: ours.Installation, client: Client, count: int) -> list[Row]:
    """Bytes a document of other collections: claims of ids, and jobs that wait for their time."""
    db, rows = installation.jobs.database, []
    await publish(client, WAITING, count)
    await asyncio.to_thread(wait, "long delays", lambda: db.scheduled.estimated_document_count() >= count, installation)
    for name in ("claims", "scheduled"):
        number = db[name].count_documents({})
        (size,) = db[name].aggregate([{"$group": {"_id": None, "bytes": {"$avg": {"$bsonSize": "$$ROOT"}}}}])
        disk, indexes = taken(db, name)
        rows.append(
            {
                "job": f"collection {name}",
                "document": size["bytes"],
                "on disk": disk / number,
                "indexes": indexes / number,
            }
        )
    return rows


async def queued(
    installation: ours.Installation, client: Client, rabbit: LocalRabbit, folder: Path, count: int
) -> list[Row]:
    """Bytes a message in RabbitMQ: its body, the node's files, the node's memory."""
    rows = []
    prefix = installation.environment["DISPATCHER_AMQP__PREFIX"]
    queue = f"{prefix}work.v1.{IDLE}.normal"
    with httpx.Client(base_url=f"{rabbit.management_url}/api", auth=("guest", "guest"), timeout=30) as api:

        def asked() -> dict[str, Any]:
            found: dict[str, Any] = api.get(f"/queues/%2F/{queue}").json()
            return found

        for kind, job in QUEUED.items():
            there, bytes_before = asked().get("messages", 0), asked().get("message_bytes", 0)
            disk, memory = used(folder), resident(rabbit.url, 5672)
            await publish(client, job, count)
            full = await asyncio.to_thread(settled, asked, there + count, installation)
            grown = full["message_bytes"] - bytes_before
            rows.append(
                {
                    "queued": kind,
                    "body": grown / count,
                    "files": (used(folder) - disk) / count,
                    "memory": (resident(rabbit.url, 5672) - memory) / count,
                }
            )
    return rows


def settled(asked: Callable[[], dict[str, Any]], count: int, installation: ours.Installation) -> dict[str, Any]:
    """The queue once it has so many messages and what is told of it has not changed for three of its intervals."""
    seen: list[tuple[int, int]] = []

    def same() -> bool:
        found = asked()
        seen.append((found.get("messages", 0), found.get("message_bytes", 0)))
        return seen[-1][0] >= count and len(seen) > 75 and len(set(seen[-75:])) == 1

    wait("the queue is told of", same, installation)
    return asked()


def used(folder: Path) -> int:
    """Bytes that the files below a folder have on disk."""
    total = 0
    for path in folder.rglob("*"):
        try:
            total += path.stat().st_blocks * 512
        except FileNotFoundError:
            continue
    return total


def resident(url: str, port: int) -> int:
    """Bytes of memory that the server behind a URL has resident."""
    pid = server_pid(url, port)
    if pid is None:
        raise BenchError(f"no process of this machine listens at {url}")
    return resident_of(pid)


def resident_of(pid: int) -> int:
    """The same of a process."""
    line = next(line for line in Path(f"/proc/{pid}/status").read_text().splitlines() if line.startswith("VmRSS"))
    return int(line.split()[1]) * 1024


def processes(installation: ours.Installation) -> list[Row]:
    """Resident memory of each process of ours, now."""
    return [{"process": child.role, "MiB": resident_of(child.pid) / 2**20} for child in installation.children]


@contextmanager
def servers_of_our_own(folder: Path) -> Iterator[tuple[LocalRabbit, LocalMongo]]:
    """Both, below the folder, with patience: the machine may be busy."""
    with ExitStack() as stack:
        rabbit, mongo = LocalRabbit(folder / "rabbit"), LocalMongo(folder / "mongo")
        for server in (rabbit, mongo):
            stack.callback(server.kill)
            server.start()
        for server in (rabbit, mongo):
            server.wait_ready(PATIENCE)
        yield rabbit, mongo


async def measure(
    installation: ours.Installation, rabbit: LocalRabbit, folder: Path, jobs: int, many: int
) -> dict[str, list[Row]]:
    """Everything, one after the other."""
    environment = installation.environment
    idle = processes(installation)
    url, prefix = environment["DISPATCHER_AMQP__URL"], environment["DISPATCHER_AMQP__PREFIX"]
    async with Client(url, environment["DISPATCHER_API_KEY"], prefix=prefix) as client:
        stored = await documents(installation, client, jobs)
        stored += await others(installation, client, jobs)
        waiting = await queued(installation, client, rabbit, folder / "rabbit" / "data", many)
    return {"MongoDB": stored, "RabbitMQ": waiting, "idle": idle, "after": processes(installation)}


def show(found: dict[str, list[Row]]) -> None:
    """A table for each place."""
    for place, rows in found.items():
        table = Table(*rows[0], title=f"{place}, bytes" if "MiB" not in rows[0] else place)
        for row in rows:
            table.add_row(*(value if isinstance(value, str) else f"{value:,.0f}" for value in row.values()))
        Console().print(table)


@click.command(context_settings={"help_option_names": ["-h", "--help"]})
@click.option(
    "--jobs", default=2_000, show_default=True, type=click.IntRange(min=100), help="Of each kind, in MongoDB."
)
@click.option("--queued", "many", default=10_000, show_default=True, type=click.IntRange(min=100), help="Of each size.")
@click.option("--json", "file", type=click.Path(dir_okay=False, path_type=Path), help="Write every figure here.")
def main(jobs: int, many: int, file: Path | None) -> None:
    """Measure what a job takes in MongoDB, in RabbitMQ and in our processes."""
    lanes = {"DISPATCHER_LANES": json.dumps(["default", IDLE]), "DISPATCHER_WORKER__LANES": '["default"]'}
    with ending_unwinds(), tempfile.TemporaryDirectory() as name, servers_of_our_own(Path(name)) as (rabbit, mongo):
        folder = Path(name)
        with ours.installation(Servers(rabbit.url, mongo.url), folder, lanes) as installation:
            found = asyncio.run(measure(installation, rabbit, folder, jobs, many))
    show(found)
    if file is not None:
        file.write_text(json.dumps(found, indent=2) + os.linesep, encoding="utf-8")


if __name__ == "__main__":
    main()
