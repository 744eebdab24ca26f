"""`make revoking` in short: keys are revoked under load, and nobody's jobs are accepted 2 s later."""

from __future__ import annotations

import pytest

from tests.faults import revoking
from tests.support import Installation

pytestmark = [pytest.mark.faults, pytest.mark.timeout(300)]


@pytest.mark.long
async def test_a_revoked_key_is_refused_within_2_s_under_load(
    installed: Installation, capsys: pytest.CaptureFixture[str]
) -> None:
    """By two intakes; the key that is not revoked goes on."""
    figures = await revoking.measure(installed, 6, 100)
    shown = revoking.show(figures)
    with capsys.disabled():
        print(f"\n{shown}")
    assert revoking.good(figures), shown


def test_the_percentile_is_a_value_that_was_measured() -> None:
    """The nearest rank: with few values the 99th is the largest."""
    assert revoking._percentile([1.0, 2.0, 3.0], 99) == 3.0
    assert revoking._percentile([1.0, 2.0, 3.0], 50) == 2.0
    late = {"ms": {"p99": 2000.1}, "refused_by_intake": [1, 1], "kept_key_accepted": True}
    assert not revoking.good(late)
    assert revoking.good(late | {"ms": {"p99": 1999.9}})
    assert not revoking.good(late | {"ms": {"p99": 1.0}, "refused_by_intake": [0, 9]})
