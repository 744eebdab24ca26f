"""`make demo`: real servers, every service, a few hundred jobs from a client, and what history says of them."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
import uuid
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pymongo
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

from dev.demo_client import SHOWN_JOB
from dev.demo_tables import latency_table, outcome_table, retry_table
from dev.servers import ServerError, Servers, servers, shown
from dev.signals import ending_unwinds

TARGET = "examples.handlers:jobs"
FINAL = ("succeeded", "failed", "timed_out", "cancelled", "rejected")
#: Seconds after which the demo gives up; it needs about 15.
PATIENCE = 60.0

out = Console(width=None if sys.stdout.isatty() else 120, highlight=False)


class DemoError(Exception):
    """The demo cannot go on; the sentence says why."""


def main() -> int:
    """Run the demo; returns the exit code."""
    try:
        with ending_unwinds(), servers() as found:
            demo(found)
    except (ServerError, DemoError) as error:
        print(f"demo: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("demo: stopped", file=sys.stderr)
        return 130
    return 0


def demo(found: Servers) -> None:
    """The demo on these servers, under a prefix and in a database of its own, which are removed at the end."""
    name = f"demo-{uuid.uuid4().hex[:8]}"
    env = os.environ | found.environment()
    env |= {"DISPATCHER_AMQP__PREFIX": f"{name}.", "DISPATCHER_MONGO__DATABASE": name}
    env |= {"DISPATCHER_LOG__LEVEL": "error", "DISPATCHER_LOG__FORMAT": "json"}
    out.print(f"\n[bold]1. Servers[/]   RabbitMQ {shown(found.amqp_url)}   MongoDB {shown(found.mongo_url)}")
    if found.management_url:
        out.print(f"   Look at the queues while it runs: {found.management_url} (guest, guest)")
    client: Any = pymongo.MongoClient(found.mongo_url)
    try:
        _declare(env)
        env["DISPATCHER_API_KEY"] = _create_key(env)
        with _services(env):
            published = _publish(found, env)
            _watch(client[name], published)
        _show(client[name], env)
    finally:
        client.drop_database(name)
        _remove_queues(env)


def dispatcher(*arguments: str) -> list[str]:
    """A command of the product, run by this interpreter's environment."""
    return [str(Path(sys.executable).with_name("dispatcher")), *arguments]


def _output(command: list[str], env: Mapping[str, str]) -> str:
    done = subprocess.run(command, env=env, capture_output=True, text=True)
    if done.returncode:
        raise DemoError(f"{' '.join(command)} failed: {done.stderr.strip()}")
    return done.stdout


def _declare(env: Mapping[str, str]) -> None:
    made = json.loads(_output(dispatcher("topology", "apply", "--json"), env))
    counts = f"{made['queues']} queues, {made['exchanges']} exchanges"
    out.print(f"[bold]2. Topology[/]  {counts}; `dispatcher topology show` lists them")


def _create_key(env: Mapping[str, str]) -> str:
    made = json.loads(_output(dispatcher("keys", "create", "--app", "demo", "--expires", "1d", "--json"), env))
    out.print(f"[bold]3. API key[/]   {made['id']} of app {made['app']}; only its hash is stored")
    return str(made["key"])


@contextmanager
def _services(env: Mapping[str, str]) -> Iterator[None]:
    """Every service and a worker, in a process of its own each, stopped at the end."""
    commands = [dispatcher("run", s) for s in ("intake", "recorder", "scheduler")] + [dispatcher("worker", TARGET)]
    running = [subprocess.Popen(command, env=env, stderr=subprocess.DEVNULL) for command in commands]
    out.print("[bold]4. Services[/]  intake, recorder, scheduler and a worker, a process each")
    try:
        yield
        dead = [command for command, process in zip(commands, running, strict=True) if process.poll() is not None]
        if dead:
            raise DemoError(f"{' '.join(dead[0])} ended by itself")
    finally:
        for process in running:
            process.terminate()
        for process in running:
            _wait(process)


def _wait(process: subprocess.Popen[bytes]) -> None:
    try:
        process.wait(15)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


def _publish(found: Servers, env: Mapping[str, str]) -> int:
    command = [sys.executable, "-m", "dev.demo_client", found.amqp_url, env["DISPATCHER_AMQP__PREFIX"]]
    done = json.loads(_output(command, env))
    out.print(
        f"[bold]5. Client[/]    published {done['published']} jobs in {done['seconds']} s, confirmed by the broker\n"
    )
    return int(done["published"])


def _watch(db: Any, published: int) -> None:
    """Live progress until every job is final."""
    deadline = time.monotonic() + PATIENCE
    columns = (
        TextColumn("   {task.description}"),
        BarColumn(40),
        TextColumn("{task.completed}/{task.total}"),
        TimeElapsedColumn(),
    )
    with Progress(*columns, console=out) as progress:
        bar = progress.add_task("jobs in a final state", total=published)
        while True:
            states = {
                row["_id"]: row["n"] for row in db.jobs.aggregate([{"$group": {"_id": "$state", "n": {"$sum": 1}}}])
            }
            done = sum(states.get(state, 0) for state in FINAL)
            waiting = ", ".join(f"{n} {state}" for state, n in sorted(states.items()) if state not in FINAL)
            progress.update(
                bar, completed=done, description=f"jobs in a final state [dim]({waiting or 'none waits'})[/]"
            )
            if done >= published:
                return
            if time.monotonic() > deadline:
                raise DemoError(f"only {done} of {published} jobs were final after {PATIENCE:g} s ({waiting})")
            time.sleep(0.1)


def _show(db: Any, env: Mapping[str, str]) -> None:
    out.print("\nWhat history (MongoDB) says:\n")
    for table in (outcome_table(db), retry_table(db), latency_table(db)):
        out.print(table)
    out.print(f"One job's timeline, as `dispatcher jobs show {SHOWN_JOB}` prints it:")
    print(_output(dispatcher("jobs", "show", SHOWN_JOB), env))
    out.print("Next: `make up` runs it all in the foreground; README.md shows how to publish and write handlers.")


def _remove_queues(env: Mapping[str, str]) -> None:
    """Delete what was declared, for servers that were not started by us."""
    import pika

    made = json.loads(_output(dispatcher("topology", "show", "--json"), env))
    connection = pika.BlockingConnection(pika.URLParameters(env["DISPATCHER_AMQP__URL"]))
    channel = connection.channel()
    for queue in made["queues"]:
        channel.queue_delete(queue["name"])
    for exchange in made["exchanges"]:
        channel.exchange_delete(exchange["name"])
    connection.close()


if __name__ == "__main__":
    sys.exit(main())
