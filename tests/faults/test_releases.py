"""`make releases` in short: thousands of jobs due in the same second come without a stall, and hold up nobody else."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.faults import releases
from tests.support import Installation

pytestmark = [pytest.mark.faults, pytest.mark.timeout(300)]


@pytest.mark.long
async def test_what_is_due_in_one_second_comes_without_a_stall(
    installed: Installation, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Two schedulers; each job once, none early, plain ones at once."""
    figures = await releases.measure(installed, tmp_path, releases.Plan(3_000, 2, 8.0), lambda _: None)
    shown = releases.show(figures)
    with capsys.disabled():
        print(f"\n{shown}")
    assert releases.good(figures), shown


def test_what_stalled_is_not_good() -> None:
    """Each promise counts."""
    figures = {"early": 0, "twice_unmarked": 0, "left": 0, "longest_pause_ms": 2000}
    plain = {"jobs": 9, "wait_ms": {"p99": 1000}}
    assert releases.good({**figures, "plain": plain})
    for name in figures:
        assert not releases.good({**figures, name: 2001, "plain": plain})
    assert not releases.good({**figures, "plain": {**plain, "wait_ms": {"p99": 1001}}})
    assert not releases.good({**figures, "plain": {**plain, "jobs": 0}})
