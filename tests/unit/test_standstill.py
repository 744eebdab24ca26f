"""A process that stood still notices it before it does anything else."""

from __future__ import annotations

import time

from consumers.standstill import TICK, Standstill
from tests.support import eventually


async def test_a_pause_is_noticed_at_once_and_told_once() -> None:
    """Here the loop is held up by a handler that blocks it; to the clock a stopped process looks the same."""
    told: list[float] = []
    standstill = Standstill(TICK + 0.5, lambda: told.append(time.monotonic()))
    standstill.start()
    assert not standstill.noticed
    time.sleep(TICK + 0.6)
    assert standstill.noticed
    assert told == []
    await eventually(lambda: told, "the pause was told", timeout=10)
    assert not standstill.noticed
    standstill.stop()
    assert len(told) == 1
