"""`consumers.testing`: jobs that are put off by their clients."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime, timedelta
from typing import Any

from consumers import Registry
from consumers.testing import Simulation

jobs = Registry()
START = datetime(2031, 5, 6, 7, 8, 9, tzinfo=UTC)


@jobs.handler("sleep")
async def sleep(payload: dict[str, Any]) -> None:
    """Takes ``seconds``."""
    await asyncio.sleep(payload.get("seconds", 0))


def test_delays_and_expiries_are_those_of_the_contract() -> None:
    """A job starts at its time, and not after its expiry; a year's delay costs nothing."""
    with Simulation(jobs, start=START, concurrency=1) as sim:
        later = sim.submit("sleep", delay=364 * 86_400)
        at = sim.submit("sleep", run_at="2031-05-06T08:08:09Z")
        slow = sim.submit("sleep", {"seconds": 100})
        expired = sim.submit("sleep", expires=50)
        assert (later.state, at.state, slow.state) == ("scheduled", "scheduled", "queued")
        sim.run()
        assert (slow.state, expired.state, expired.attempts) == ("succeeded", "expired", [])
        assert at.attempts[0]["started_at"] == START + timedelta(hours=1)
        assert later.attempts[0]["started_at"] == START + timedelta(days=364)
        assert sim.elapsed == 364 * 86_400
