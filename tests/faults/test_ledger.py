"""5,000 jobs while intake, worker and recorder are killed three times each: nothing is lost, nothing ends twice."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from dispatcher import Client
from tests.conftest import make_settings
from tests.faults.fleet import Fleet
from tests.faults.handlers import LEDGER_VARIABLE
from tests.faults.load import Load
from tests.support import Installation

pytestmark = pytest.mark.faults

KILLS = ("intake", "worker", "recorder") * 3


async def kill_at_random(fleet: Fleet, load: Load) -> None:
    """The kills, in random order, spread over the time of publishing."""
    order = load.rng.sample(KILLS, len(KILLS))
    moments = sorted(load.rng.uniform(2, load.seconds) for _ in order)
    loop = asyncio.get_running_loop()
    began = loop.time()
    for moment, name in zip(moments, order, strict=True):
        await asyncio.sleep(max(began + moment - loop.time(), 0))
        await asyncio.to_thread(fleet.kill, name)


@pytest.mark.timeout(600)
async def test_ledger(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Lost 0, unexpected 0, one final state each, statistics equal to the documents; the ledger is printed."""
    load = Load(5_000, 250)
    installation = Installation(make_settings())
    await asyncio.to_thread(installation.apply)
    path = tmp_path / "executions"
    environment = installation.environment() | {LEDGER_VARIABLE: str(path)}
    key = await installation.create_key("chaos")
    with Fleet(environment, tmp_path) as fleet:
        fleet.start("scheduler", "intake", "worker", "recorder")
        async with Client(installation.amqp_url, key, prefix=installation.settings.amqp.prefix) as client:
            await asyncio.gather(load.publish(client), kill_at_random(fleet, load))
        account = await load.settled(installation, path)
    with capsys.disabled():
        print(f"\nledger of {load.jobs} jobs, seed {load.seed}\n{account.show(fleet.kills)}")
    assert {name: n for name, n in fleet.kills.items() if n} == {"intake": 3, "worker": 3, "recorder": 3}
    # an execution is repeated, or its end unknown, only where a kill fell between its start and its acknowledgement
    assert account.extra <= 3 * 2 * 100, "more repeated executions than a worker can have held"
    await asyncio.to_thread(installation.remove)
