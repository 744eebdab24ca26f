"""docs/sizing.md names limits and defaults as they are."""

from __future__ import annotations

import re

from config import load_settings
from dispatcher.core.topology import PARKED_LIMITS, REJECTED_LIMITS, Names, build
from tests.acceptance.readme import ROOT

TEXT = (ROOT / "docs" / "sizing.md").read_text(encoding="utf-8")


def test_queues_and_lanes() -> None:
    """How many queues and exchanges there are, and how many another lane brings."""
    one, two = build(Names(""), ["default"]), build(Names(""), ["default", "slow"])
    assert f"there are {len(one.queues)} queues and {len(one.exchanges)} exchanges" in TEXT
    assert f"| lanes | {len(two.queues) - len(one.queues)} queues each |" in TEXT
    assert len(two.exchanges) == len(one.exchanges)


def test_limits_of_queues() -> None:
    """What is refused and what is parked has room for so much."""
    (refused,) = re.findall(r"`rejected` is bounded at ([\d,]+) messages or (\d+) GiB", TEXT)
    (parked,) = re.findall(r"`parked\.v1\.<lane>` at ([\d,]+) messages or (\d+) GiB", TEXT)
    for (count, gib), limits in ((refused, REJECTED_LIMITS), (parked, PARKED_LIMITS)):
        assert int(count.replace(",", "")) == limits["x-max-length"]
        assert int(gib) << 30 == limits["x-max-length-bytes"]


def test_defaults() -> None:
    """Places and read-ahead of a worker, as the configuration has them."""
    worker = load_settings({}).worker
    assert f"{worker.concurrency} places of one process" in TEXT
    assert f"leave it at {worker.read_ahead}" in TEXT
