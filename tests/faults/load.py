"""Jobs of every kind, published at a steady rate while something is killed; and the account at the end."""

from __future__ import annotations

import asyncio
import json
import os
import random
import subprocess
import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from dispatcher import Client
from tests.faults.ledger import Account, Ledger, read_executions, settle
from tests.support import Installation, eventually

FINAL = ["succeeded", "failed", "timed_out", "cancelled"]


def seed() -> int:
    """The run's seed: TEST_SEED, or a new one, which the ledger prints."""
    return int(os.environ.get("TEST_SEED", random.SystemRandom().randrange(10**6)))


@dataclass
class Load:
    """So many jobs at so many a second, chosen by a seed, and their ledger."""

    jobs: int
    rate: float
    seed: int = field(default_factory=seed)
    ledger: Ledger = field(default_factory=Ledger)

    def __post_init__(self) -> None:
        self.rng = random.Random(self.seed)

    @property
    def seconds(self) -> float:
        """How long publishing takes."""
        return self.jobs / self.rate

    def _plan(self) -> list[tuple[str, dict[str, Any], str]]:
        """(type, payload, priority) of each job."""
        kinds = ["chaos.plain", "chaos.flaky", "chaos.hopeless", "chaos.slow", "chaos.snooze"]
        made = []
        for _ in range(self.jobs):
            (kind,) = self.rng.choices(kinds, [80, 10, 3, 2, 5])
            payload = {"ms": self.rng.choice([1, 5, 20, 100]), "failures": self.rng.randint(1, 2)}
            made.append((kind, payload, self.rng.choice(["critical", "high", "normal", "low", "background"])))
        return made

    async def publish(self, client: Client) -> None:
        """Publish, noting what was attempted and what was acknowledged."""
        loop = asyncio.get_running_loop()
        began = loop.time()

        async def one(index: int, kind: str, payload: dict[str, Any], priority: str) -> None:
            job_id = f"job-{index:05d}"
            self.ledger.attempted[job_id] = kind
            await client.publish(kind, payload, id=job_id, priority=priority)
            self.ledger.acknowledged.add(job_id)

        tasks = []
        for index, job in enumerate(self._plan()):
            await asyncio.sleep(max(began + index / self.rate - loop.time(), 0))
            tasks.append(asyncio.create_task(one(index, *job)))
        await asyncio.gather(*tasks)

    async def settled(self, installation: Installation, executions: Path) -> Account:
        """Wait until every job is final and the queues are empty, and compare; checks everything but repeats."""
        await self._all_final(installation)
        names = installation.names
        for queue in (names.intake, names.history, names.stray, names.unrouted, names.unrecorded):
            await eventually(lambda q=queue: installation.depth(q) == 0, f"{queue} is empty")  # type: ignore[misc]
        account = settle(self.ledger, read_executions(executions), installation.db.jobs.find())
        assert (account.lost, account.unexpected, account.wrong) == ([], [], [])
        assert len(self.ledger.acknowledged) == self.jobs
        stats = await asyncio.to_thread(_statistics, installation)
        total = {state: n for state, n in stats["total"].items() if n and state != "retries"}
        assert total == dict(account.states)
        assert stats["total"]["retries"] == account.retries
        parked = {json.loads(body)["id"] for _, body in installation.drain(names.parked("default"))}
        assert parked == {d["id"] for d in installation.db.jobs.find({"state": {"$in": ["failed", "timed_out"]}})}
        return account

    async def _all_final(self, installation: Installation) -> None:
        """Wait for the last job, as long as there is progress: a busy machine is slow, a lost job stands still."""

        def final() -> int:
            return int(installation.db.jobs.count_documents({"state": {"$in": FINAL}}))

        count = 0
        while count < self.jobs:
            states = list(installation.db.jobs.aggregate([{"$sortByCount": "$state"}]))
            what = f"progress of {self.jobs} jobs (seed {self.seed}); now {states}"
            count = await eventually(lambda known=count: (now := final()) > known and now, what, every=0.25)  # type: ignore[misc]


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
