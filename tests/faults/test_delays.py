"""`make delays` in short: the lower levels of the ladder, one kill while most of the jobs are in it."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.faults import delays
from tests.faults.conftest import Servers
from tests.faults.run import run
from tests.faults.test_chaos import seed

pytestmark = [pytest.mark.faults, pytest.mark.long, pytest.mark.timeout(300)]


async def test_delays_through_a_kill_of_the_broker(
    started: Servers, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """600 jobs are put off for up to 8 s; nothing is lost, none is early, few are executed again."""
    scenario = delays.scenario(seed(), 600, 300, 7.875, [(0.5, 1.0)])
    outcome = await run(scenario, *started, tmp_path)
    shown = delays.show(outcome)
    with capsys.disabled():
        print(f"\n{shown}")
    assert delays.good(outcome), shown
    (kill,) = delays.figures(outcome)["kills"]
    assert kill["due_meanwhile"] > 100
