"""The soak's verdict, on memory that was made up: what is flat passes, every way of growing is seen."""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.soak.checks import huge_problems
from tests.soak.verdict import HUGE, HUGE_LEFT, HUGE_PEAK, IDLE, KIB, MIB, STEADY, Row, Sample, explained, rows, slope

BASE = 60 * MIB


def samples(
    process: str, phase: str, size: Callable[[float], float], seconds: float = 600, peak: float | None = None
) -> list[Sample]:
    """A sample every two seconds of a phase; the size is a function of the seconds since its beginning."""
    found = []
    for at in range(0, int(seconds) + 1, 2):
        rss = int(size(at))
        found.append(Sample(process, phase, 1_000 + at, rss, rss, int(rss if peak is None else peak)))
    return found


def judged(process: str, phase: str, size: Callable[[float], float], **options: Any) -> Row:
    """The row of a phase after an idle one."""
    found = rows(samples(process, IDLE, lambda _: BASE, 20) + samples(process, phase, size, **options))
    return found[-1]


def noise(seed: int) -> Callable[[float], float]:
    """Flat, with steps of the allocator."""
    rng = random.Random(seed)
    return lambda _: BASE + rng.choice([0, 0, 0, MIB])


@pytest.mark.parametrize("seconds", [60, 600, 3_600])
def test_flat_memory_is_within_bounds(seconds: float) -> None:
    """With the allocator's noise, in short runs and long ones."""
    for seed in range(20):
        assert judged("intake-1", STEADY, noise(seed), seconds=seconds).problems == ()


@pytest.mark.parametrize(
    ("an_hour", "seconds", "broken"),
    [
        (0.05 * BASE, 3_600, False),
        (0.15 * BASE, 3_600, True),
        (0.15 * BASE, 600, False),  # 1.5 MiB in ten minutes: nobody can tell
        (0.5 * BASE, 600, True),
        (-0.5 * BASE, 3_600, False),
    ],
)
def test_a_leak_is_seen(an_hour: float, seconds: float, *, broken: bool) -> None:
    """A tenth of the memory in an hour is too much, and what a run is too short to tell is not held against it."""
    rng = random.Random(1)
    row = judged("worker-1", STEADY, lambda at: BASE + an_hour * at / 3_600 + rng.choice([0, MIB / 4]), seconds=seconds)
    assert bool(row.problems) is broken
    assert row.growth == pytest.approx(an_hour, abs=BASE / 10)
    if broken:
        assert "an hour" in row.problems[0]


def test_what_fills_at_the_beginning_of_the_steady_phase_is_no_growth() -> None:
    """Caches fill in the first minutes."""
    row = judged("recorder-1", STEADY, lambda at: BASE + min(at / 100, 1) * 20 * MIB)
    assert row.problems == ()


@pytest.mark.parametrize("kind", ["intake", "worker", "recorder", "scheduler"])
def test_a_peak_beyond_what_is_explained_is_seen(kind: str) -> None:
    """One byte more than prefetch and caches explain; a peak between two samples counts too."""
    most = BASE + explained(kind)
    assert judged(f"{kind}-1", "queued", lambda _: BASE, peak=most).problems == ()
    (problem,) = judged(f"{kind}-1", "queued", lambda _: BASE, peak=most + 1).problems
    assert "above idle" in problem


def test_a_service_that_held_the_queue_would_be_seen() -> None:
    """A million jobs of 300 bytes, held as text alone, break every bound."""
    for kind in ("intake", "worker", "recorder", "scheduler"):
        assert explained(kind) < 1_000_000 * 300
        assert explained(kind) < 200 * MIB


def test_huge_results_may_be_there_once_and_must_be_gone() -> None:
    """Both bounds of that phase, each for itself."""
    fine = judged("worker-1", HUGE, lambda _: BASE, peak=BASE + HUGE_PEAK)
    assert fine.problems == ()
    (problem,) = judged("worker-1", HUGE, lambda _: BASE, peak=BASE + HUGE_PEAK + 1).problems
    assert "its peak" in problem
    (problem,) = judged("worker-1", HUGE, lambda at: BASE + (HUGE_LEFT + KIB) * (at > 500)).problems
    assert "are left" in problem


def test_servers_and_children_are_shown_and_not_judged() -> None:
    """They are not ours, or live for a job."""
    for process in ("RabbitMQ", "mongod", "worker-1 children"):
        row = judged(process, STEADY, lambda at: BASE + at * MIB)
        assert row.problems == ()
        assert row.growth == pytest.approx(3_600 * MIB)


def test_a_process_whose_idle_memory_is_not_known_is_not_passed() -> None:
    """A soak that began wrongly says so."""
    (row,) = rows(samples("intake-1", "queued", lambda _: BASE))
    assert row.problems == ("its idle memory is not known",)


@given(st.floats(-1e6, 1e6), st.floats(-1e3, 1e3), st.lists(st.integers(0, 10_000), min_size=2, unique=True))
def test_the_slope_of_a_line_is_the_lines(offset: float, rise: float, at: list[int]) -> None:
    """Whatever the points are."""
    assert slope([(x, offset + rise * x) for x in at]) == pytest.approx(rise, abs=1e-3)


def test_the_slope_of_nothing_is_none() -> None:
    """No point, one point, one time."""
    assert slope([]) == slope([(1, 5)]) == slope([(1, 5), (1, 9)]) == 0


def document(**fields: Any) -> dict[str, Any]:
    """A job that returned too much, as it should be in history."""
    message = "the result has at least 100000002 bytes of JSON, at most 262144 are recorded (worker.max_result_bytes)"
    made = {"type": "soak.huge.loop", "state": "failed", "attempts": [{"outcome": "failed"}]}
    return {**made, "error": {"message": message}, **fields}


@pytest.mark.parametrize(
    ("fields", "beside", "problems"),
    [
        ({}, "succeeded", 0),
        ({"state": "succeeded"}, "succeeded", 1),
        ({"attempts": [{"outcome": "failed"}] * 2}, "succeeded", 1),
        ({"attempts": [{"outcome": "crashed"}]}, "succeeded", 1),
        ({"error": {"message": "too large"}}, "succeeded", 1),
        ({"error": None}, "succeeded", 1),
        ({}, "failed", 1),
    ],
)
def test_a_huge_result_that_is_not_refused_clearly_is_a_problem(
    fields: dict[str, Any], beside: str, problems: int
) -> None:
    """Its state, its attempts, its error, and the jobs beside it."""
    assert len(huge_problems(document(**fields), [{"_id": "a:b", "state": beside}])) == problems
