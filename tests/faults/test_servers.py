"""2,500 jobs while RabbitMQ and MongoDB are killed and come back: nothing is lost, and every service resumes."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from dev.mongo import LocalMongo
from dev.rabbit import LocalRabbit
from dispatcher import Client
from tests.conftest import make_settings
from tests.faults.fleet import Fleet
from tests.faults.handlers import LEDGER_VARIABLE
from tests.faults.load import Load
from tests.support import Installation

pytestmark = pytest.mark.faults

#: RabbitMQ 3.10 can lose a quorum queue that was declared just before it is killed.
DECLARED = 3.0


async def kill_and_restart(load: Load, rabbit: LocalRabbit, mongo: LocalMongo) -> None:
    """Each server twice, in random order, away for a random while; then the next."""
    order = load.rng.sample([rabbit, mongo] * 2, 4)
    for server in order:
        await asyncio.sleep(load.rng.uniform(1, 3))
        await asyncio.to_thread(server.kill)
        await asyncio.sleep(load.rng.uniform(0, 2))
        server.start()
        await asyncio.to_thread(server.wait_ready)


@pytest.mark.timeout(600)
async def test_servers(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Lost 0, unexpected 0, one final state each, statistics equal to the documents; no service ends by itself."""
    load = Load(2_500, 100)
    with LocalRabbit(tmp_path / "rabbitmq") as rabbit, LocalMongo(tmp_path / "mongo") as mongo:
        settings = make_settings(DISPATCHER_AMQP__URL=rabbit.url, DISPATCHER_MONGO__URL=mongo.url)
        installation = Installation(settings)
        await asyncio.to_thread(installation.apply)
        path = tmp_path / "executions"
        environment = installation.environment() | {LEDGER_VARIABLE: str(path)}
        key = await installation.create_key("chaos")
        await asyncio.sleep(DECLARED)
        with Fleet(environment, tmp_path) as fleet:
            fleet.start("scheduler", "intake", "worker", "recorder")
            async with Client(installation.amqp_url, key, prefix=settings.amqp.prefix) as client:
                await asyncio.gather(load.publish(client), kill_and_restart(load, rabbit, mongo))
            account = await load.settled(installation, path)
            ended = fleet.ended()
    with capsys.disabled():
        killed = {"RabbitMQ": 2, "MongoDB": 2}
        print(f"\nledger of {load.jobs} jobs, seed {load.seed}\n{account.show(killed)}")
    assert ended == []
