"""An installation of ours for one run: own prefix, own database, one process a role, as in production."""

from __future__ import annotations

import json
import os
import secrets
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from bench.processes import ROOT, BenchError, Child, connected_publisher, python
from bench.servers import CpuMeter, Servers, database, delete
from config import load_settings
from dispatcher.composition import topology_of

SERVICES = {
    "intake": ["run", "intake"],
    "worker": ["worker", "bench.handlers:jobs"],
    "recorder": ["run", "recorder"],
    "scheduler": ["run", "scheduler"],
}
_COMMAND = ["-m", "dispatcher.cli.main"]
READY_TIMEOUT = 60.0


@dataclass
class Installation:
    """What a measurement needs of a running installation."""

    servers: Servers
    environment: dict[str, str]
    jobs: Any
    folder: Path
    children: list[Child] = field(default_factory=list)

    def check(self) -> None:
        """Raise BenchError if a process has ended."""
        for child in self.children:
            child.check()

    def meter(self, publisher: Child) -> CpuMeter:
        """Begin to measure the CPU time of every process, and of the servers."""
        children = {child.role: child.pid for child in [publisher, *self.children]}
        return CpuMeter({**children, **self.servers.pids()})

    @contextmanager
    def publisher(self, plan: str, count: int, rate: float = 0) -> Iterator[Child]:
        """The publisher's process, connected, with one job of it gone the whole way."""
        arguments = ["-m", "bench.publisher", plan, str(count), str(rate)]
        with connected_publisher(arguments, self.environment, self.folder) as child:
            self.wait_succeeded(1, 30)
            yield child

    def wait_succeeded(self, count: int, timeout: float) -> float:
        """Wait until so many jobs have succeeded in history; returns the monotonic time of it.

        The number of documents, which costs nothing to ask, cannot be below the number of those that succeeded,
        whose count is answered by an index.
        """
        deadline = time.monotonic() + timeout
        while True:
            documents = self.jobs.estimated_document_count()
            if documents >= count and self.jobs.count_documents({"state": "succeeded"}) >= count:
                return time.monotonic()
            if time.monotonic() > deadline:
                states = list(self.jobs.aggregate([{"$group": {"_id": "$state", "n": {"$sum": 1}}}]))
                raise BenchError(f"not all of {count} jobs succeeded within {timeout:g} s: {states}")
            self.check()
            time.sleep(0.05)


@contextmanager
def installation(servers: Servers, folder: Path, extra: dict[str, str] | None = None) -> Iterator[Installation]:
    """Set up an installation, give it while it runs, and remove every trace of it."""
    name = f"bench-{secrets.token_hex(4)}"
    environment = {
        "DISPATCHER_AMQP__URL": servers.amqp_url,
        "DISPATCHER_AMQP__PREFIX": f"{name}.",
        "DISPATCHER_MONGO__URL": servers.mongo_url,
        "DISPATCHER_MONGO__DATABASE": name,
        "DISPATCHER_LOG__LEVEL": "warning",
        **(extra or {}),
    }
    with ExitStack() as stack:
        db = stack.enter_context(database(servers.mongo_url, name))
        stack.callback(_delete_topology, environment)
        _dispatcher(["topology", "apply"], environment)
        key = json.loads(_dispatcher(["keys", "create", "--app", "bench", "--json"], environment))["key"]
        given = Installation(servers, {**environment, "DISPATCHER_API_KEY": key}, db["jobs"], folder)
        ports = {role: _free_port() for role in SERVICES}
        for role, arguments in SERVICES.items():
            own = {**environment, "DISPATCHER_HTTP__PORT": str(ports[role])}
            child = python(role, [*_COMMAND, *arguments], own, folder / f"{role}.log")
            stack.callback(child.stop)
            given.children.append(child)
        for child in given.children:
            _wait_ready(child, ports[child.role])
        yield given


def _dispatcher(arguments: list[str], environment: dict[str, str]) -> str:
    done = subprocess.run(
        [sys.executable, *_COMMAND, *arguments],
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(ROOT), **environment},
        capture_output=True,
        text=True,
    )
    if done.returncode:
        raise BenchError(f"dispatcher {' '.join(arguments)} failed:\n{done.stderr[-2_000:]}")
    return done.stdout


def _delete_topology(environment: dict[str, str]) -> None:
    topology = topology_of(load_settings(environment))
    delete(
        environment["DISPATCHER_AMQP__URL"],
        [queue.name for queue in topology.queues],
        [exchange.name for exchange in topology.exchanges],
    )


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def _wait_ready(child: Child, port: int) -> None:
    deadline = time.monotonic() + READY_TIMEOUT
    while True:
        child.check()
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{port}/readyz", timeout=2) as answer:
                if answer.status == 200:
                    return
        except OSError:
            pass
        if time.monotonic() > deadline:
            raise BenchError(f"the {child.role} did not get ready:\n{child.tail()}")
        time.sleep(0.1)
