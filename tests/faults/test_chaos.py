"""`make chaos` in short: a few thousand jobs for each sort of fault; the ledgers are printed.

Each scenario has the bar that holds on any machine: nothing lost, nothing unexpected, one final state, and every
repeated execution has a cause. How many are repeated is printed; only what could have been held bounds it here.
"""

from __future__ import annotations

import os
import random
from pathlib import Path

import pytest

from tests.faults import report
from tests.faults.conftest import Servers
from tests.faults.plan import SHORT_LENGTHS
from tests.faults.run import Outcome, Scenario, run

pytestmark = [pytest.mark.faults, pytest.mark.timeout(600)]

#: What two workers can hold of five queues in two lanes, running and read ahead; and what two intakes can.
HELD_BY_WORKERS = 2 * 5 * 2 * 200
HELD_BY_INTAKES = 2 * 500


def seed() -> int:
    """TEST_SEED, or a new one; the ledger prints it."""
    return int(os.environ.get("TEST_SEED", random.SystemRandom().randrange(10**6)))


async def check(
    started: Servers, folder: Path, capsys: pytest.CaptureFixture[str], jobs: int, rate: float, gap: float, *groups: str
) -> Outcome:
    """Run a scenario, print its ledger, and assert that it is clean."""
    scenario = Scenario(seed(), jobs, rate, groups, gap, SHORT_LENGTHS)
    outcome = await run(scenario, *started, folder)
    shown = report.show(outcome)
    with capsys.disabled():
        print(f"\n{shown}")
    assert outcome.clean, shown
    # every cause gives back, at most, what was held at its time
    repeated = HELD_BY_WORKERS + HELD_BY_INTAKES
    assert len(outcome.evidence.extras()) <= repeated * sum(fault.excuses for fault in outcome.evidence.faults)
    return outcome


@pytest.mark.long
async def test_processes(started: Servers, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Intakes, workers, the recorder and the scheduler are killed at 250 jobs/s."""
    outcome = await check(started, tmp_path, capsys, 4_000, 250, 1.0, "workers")
    assert sum(outcome.killed.values()) >= 3


async def test_servers(started: Servers, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """RabbitMQ and MongoDB are killed and come back, at 100 jobs/s; no service ends by itself."""
    await check(started, tmp_path, capsys, 1_000, 100, 2.0, "broker", "mongo")


@pytest.mark.long
async def test_network(started: Servers, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Connections are cut, reset, slow, cut into slices or silent; alarms; queues are deleted."""
    await check(started, tmp_path, capsys, 2_000, 125, 1.0, "proxy", "alarms", "queues")


@pytest.mark.long
async def test_freeze(started: Servers, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A worker stands still for longer than its heartbeat."""
    await check(started, tmp_path, capsys, 300, 60, 1.0, "freeze")
