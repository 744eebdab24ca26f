"""Celery for one run: own queue, own result collection, a worker process with its prefork children."""

from __future__ import annotations

import secrets
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit, urlunsplit

from bench.processes import BenchError, Child, connected_publisher, python
from bench.servers import CpuMeter, Servers, database, delete

#: Where Celery's MongoDB backend puts results.
RESULTS = "celery_taskmeta"


@dataclass(frozen=True)
class Tuning:
    """What was tried in several values, and set to the best for Celery (see docs/performance.md)."""

    processes: int = 4
    prefetch: int = 4
    publishers: int = 1


@dataclass
class Deployment:
    """What a measurement needs of a running Celery."""

    servers: Servers
    environment: dict[str, str]
    results: Any
    folder: Path
    worker: Child
    tuning: Tuning

    @contextmanager
    def publisher(self, count: int) -> Iterator[Child]:
        """The publisher's process, connected, with one task of it gone the whole way."""
        arguments = ["-m", "bench.celery_publisher", str(count), str(self.tuning.publishers)]
        with connected_publisher(arguments, self.environment, self.folder) as child:
            self.wait_stored(1, 60)
            yield child

    def meter(self, publisher: Child) -> CpuMeter:
        """Begin to measure the CPU time of every process, and of the servers."""
        return CpuMeter({"publisher": publisher.pid, "worker": self.worker.pid, **self.servers.pids()})

    def wait_stored(self, count: int, timeout: float) -> float:
        """Wait until so many results say SUCCESS; returns the monotonic time of it."""
        deadline = time.monotonic() + timeout
        while True:
            stored = self.results.estimated_document_count()
            if stored >= count and self.results.count_documents({"status": "SUCCESS"}) >= count:
                return time.monotonic()
            if time.monotonic() > deadline:
                raise BenchError(f"Celery did not store {count} results within {timeout:g} s:\n{self.worker.tail()}")
            self.worker.check()
            time.sleep(0.05)


@contextmanager
def deployment(servers: Servers, folder: Path, tuning: Tuning) -> Iterator[Deployment]:
    """Start a worker, give it while it runs, and remove every trace of it."""
    name = f"bench-{secrets.token_hex(4)}"
    environment = {
        "BENCH_CELERY_BROKER": servers.amqp_url,
        "BENCH_CELERY_BACKEND": _with_database(servers.mongo_url, name),
        "BENCH_CELERY_NAME": name,
        "BENCH_CELERY_PREFETCH": str(tuning.prefetch),
    }
    arguments = ["-m", "celery", "-A", "bench.celery_app:app", "worker", "--pool=prefork", "--loglevel=WARNING"]
    arguments += ["--without-gossip", "--without-mingle", "--without-heartbeat", f"--concurrency={tuning.processes}"]
    with ExitStack() as stack:
        db = stack.enter_context(database(servers.mongo_url, name))
        stack.callback(delete, servers.amqp_url, [name], [name])
        worker = python("worker", arguments, environment, folder / "celery.log")
        stack.callback(worker.stop)
        yield Deployment(servers, environment, db[RESULTS], folder, worker, tuning)


def _with_database(url: str, name: str) -> str:
    parts = urlsplit(url)
    return urlunsplit(parts._replace(path=f"/{name}"))
