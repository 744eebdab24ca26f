"""`make mixed` in short: short jobs beside some of five seconds; a worker that runs both is killed."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.faults import mixed
from tests.faults.absences import scenario
from tests.faults.conftest import Servers
from tests.faults.mixed import LongOnes
from tests.faults.run import run

#: How long the long ones are.
SECONDS = 5.0

pytestmark = [pytest.mark.faults, pytest.mark.long, pytest.mark.timeout(300)]


async def test_short_jobs_beside_long_ones(
    started: Servers, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """None of them waits for a long one; after the kill what was unfinished is run again."""
    long_ones = LongOnes(40, SECONDS, alone=3.0, beside=3.0)
    outcome = await run(scenario(3_000, 200), *started, tmp_path, beside=long_ones)
    shown = mixed.show(outcome, long_ones)
    with capsys.disabled():
        print(f"\n{shown}")
    assert outcome.clean, shown
    assert mixed.again(outcome)["long"], shown
    assert max(row["wait_ms"]["max"] for row in mixed.table(outcome, long_ones)) < SECONDS * 1000, shown
