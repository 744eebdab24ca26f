"""`make away` in short: MongoDB, then RabbitMQ, is away under load, while /readyz is asked all the time."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.faults import away
from tests.faults.absences import BrokerAway, MongoAway, scenario
from tests.faults.conftest import Servers
from tests.faults.plan import anonymous_job
from tests.faults.run import run

pytestmark = [pytest.mark.faults, pytest.mark.long, pytest.mark.timeout(300)]


async def test_mongo(started: Servers, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Away for 10 s: plain jobs run on, history is complete after its return, and /readyz says no meanwhile."""
    absence = MongoAway(3.0, 10.0)
    outcome = await run(scenario(1_600, 100, anonymous_job), *started, tmp_path, beside=absence)
    shown = away.show(outcome, absence.found)
    with capsys.disabled():
        print(f"\n{shown}")
    assert away.mongo_good(outcome, absence.found), shown


@pytest.mark.parametrize("way", ["kill", "black hole"])
async def test_broker(way: str, started: Servers, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Away for a while: every consumer is back within 10 s of its return, and /readyz says no until it is."""
    absence = BrokerAway([way], 1, 5.0)
    outcome = await run(scenario(1_000, 50), *started, tmp_path, beside=absence)
    shown = away.show(outcome, absence.found)
    with capsys.disabled():
        print(f"\n{shown}")
    assert away.broker_good(outcome, absence.found), shown
