"""5,000 jobs while intake, worker and recorder are killed three times each: nothing is lost, nothing ends twice."""

from __future__ import annotations

import asyncio
import json
import os
import random
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from dispatcher import Client
from tests.conftest import make_settings
from tests.faults.fleet import Fleet
from tests.faults.handlers import LEDGER_VARIABLE
from tests.faults.ledger import Ledger, read_executions, settle
from tests.support import Installation, eventually

pytestmark = pytest.mark.faults

JOBS = 5_000
#: Published a second; the whole takes JOBS / RATE seconds, in which the kills fall.
RATE = 250
KILLS = ("intake", "worker", "recorder") * 3
FINAL = ["succeeded", "failed", "timed_out", "cancelled"]


def plan(rng: random.Random) -> list[tuple[str, dict[str, Any], str]]:
    """(type, payload, priority) of each job."""
    made = []
    for _ in range(JOBS):
        kind = rng.choices(
            ["chaos.plain", "chaos.flaky", "chaos.hopeless", "chaos.slow", "chaos.snooze"], [80, 10, 3, 2, 5]
        )[0]
        payload = {"ms": rng.choice([1, 5, 20, 100]), "failures": rng.randint(1, 2)}
        made.append((kind, payload, rng.choice(["critical", "high", "normal", "low", "background"])))
    return made


async def publish(client: Client, ledger: Ledger, jobs: list[tuple[str, dict[str, Any], str]]) -> None:
    """Publish at the rate, noting what was attempted and what was acknowledged."""
    loop = asyncio.get_running_loop()
    began = loop.time()

    async def one(index: int, kind: str, payload: dict[str, Any], priority: str) -> None:
        job_id = f"job-{index:05d}"
        ledger.attempted[job_id] = kind
        await client.publish(kind, payload, id=job_id, priority=priority)
        ledger.acknowledged.add(job_id)

    tasks = []
    for index, job in enumerate(jobs):
        await asyncio.sleep(max(began + index / RATE - loop.time(), 0))
        tasks.append(asyncio.create_task(one(index, *job)))
    await asyncio.gather(*tasks)


async def kill_at_random(fleet: Fleet, rng: random.Random) -> None:
    """The kills, in random order, spread over the time of publishing."""
    order = rng.sample(KILLS, len(KILLS))
    span = JOBS / RATE
    moments = sorted(rng.uniform(2, span) for _ in order)
    loop = asyncio.get_running_loop()
    began = loop.time()
    for moment, name in zip(moments, order, strict=True):
        await asyncio.sleep(max(began + moment - loop.time(), 0))
        await asyncio.to_thread(fleet.kill, name)


def statistics(installation: Installation) -> dict[str, Any]:
    """What ``dispatcher stats --json`` says."""
    done = subprocess.run(
        [sys.executable, "-m", "dispatcher.cli.main", "stats", "--json"],
        env=os.environ | installation.environment(),
        capture_output=True,
        check=True,
    )
    found: dict[str, Any] = json.loads(done.stdout)
    return found


async def all_final(installation: Installation, seed: int) -> None:
    """Wait for the last job, as long as there is progress: a busy machine is slow, a lost job stands still."""

    def final() -> int:
        return int(installation.db.jobs.count_documents({"state": {"$in": FINAL}}))

    count = 0
    while count < JOBS:
        states = installation.db.jobs.aggregate([{"$sortByCount": "$state"}])
        what = f"progress of {JOBS} jobs (seed {seed}); now {list(states)}"
        count = await eventually(lambda known=count: (now := final()) > known and now, what, every=0.25)  # type: ignore[misc]


@pytest.mark.timeout(600)
async def test_ledger(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Lost 0, unexpected 0, one final state each, statistics equal to the documents; the ledger is printed."""
    seed = int(os.environ.get("TEST_SEED", random.SystemRandom().randrange(10**6)))
    rng = random.Random(seed)
    installation = Installation(make_settings())
    await asyncio.to_thread(installation.apply)
    path = tmp_path / "executions"
    environment = installation.environment() | {LEDGER_VARIABLE: str(path)}
    ledger, jobs = Ledger(), plan(rng)
    key = await installation.create_key("chaos")
    with Fleet(environment, tmp_path) as fleet:
        fleet.start("scheduler", "intake", "worker", "recorder")
        async with Client(installation.amqp_url, key, prefix=installation.settings.amqp.prefix) as client:
            await asyncio.gather(publish(client, ledger, jobs), kill_at_random(fleet, rng))
        await all_final(installation, seed)
        names = installation.names
        for queue in (names.intake, names.history, names.stray, names.unrouted, names.unrecorded):
            await eventually(lambda q=queue: installation.depth(q) == 0, f"{queue} is empty")  # type: ignore[misc]
        account = settle(ledger, read_executions(path), installation.db.jobs.find())
        stats = statistics(installation)
        parked = {json.loads(body)["id"] for _, body in installation.drain(names.parked("default"))}
    with capsys.disabled():
        print(f"\nledger of {JOBS} jobs, seed {seed}\n{account.show(fleet.kills)}")
    assert (account.lost, account.unexpected, account.wrong) == ([], [], [])
    assert len(ledger.acknowledged) == JOBS
    assert {name: n for name, n in fleet.kills.items() if n} == {"intake": 3, "worker": 3, "recorder": 3}
    total = {state: n for state, n in stats["total"].items() if n and state != "retries"}
    assert total == dict(account.states)
    assert stats["total"]["retries"] == account.retries
    dead = {d["id"] for d in installation.db.jobs.find({"state": {"$in": ["failed", "timed_out"]}})}
    assert parked == dead
    # an execution is repeated, or its end unknown, only where a kill fell between its start and its acknowledgement
    assert account.extra <= 3 * 2 * 100, "more repeated executions than a worker can have held"
    await asyncio.to_thread(installation.remove)
