"""Which job starts next: the highest first, the lowest never forgotten."""

from __future__ import annotations

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dispatcher.core.selection import ReadyJobs
from schemas import PRIORITIES

RANK = {priority: rank for rank, priority in enumerate(PRIORITIES)}
ACTIONS = st.lists(st.one_of(st.sampled_from(PRIORITIES), st.none()), max_size=200)


@given(ACTIONS)
def test_every_start_is_the_highest_or_one_in_ten_the_longest_waiting_lower(actions: list[str | None]) -> None:
    """Against a plain list, for any order of arrivals and starts."""
    ready: ReadyJobs[tuple[str, int]] = ReadyJobs()
    waiting: list[tuple[str, int]] = []
    lower_starts: list[int] = []
    starts = 0
    for number, priority in enumerate(actions):
        if priority is not None:
            ready.push(priority, (priority, number))
            waiting.append((priority, number))
            continue
        if not waiting:
            with pytest.raises(IndexError):
                ready.pop()
            continue
        starts += 1
        taken = ready.pop()
        best = min(waiting, key=lambda job: (RANK[job[0]], job[1]))
        if taken != best:
            lower = [job for job in waiting if job[0] != best[0]]
            assert taken == min(lower, key=lambda job: job[1]), "the longest waiting lower job, and no other"
            lower_starts.append(starts)
        waiting.remove(taken)
        assert len(ready) == len(waiting)
    assert all(b - a >= 10 for a, b in itertools.pairwise(lower_starts))
    assert ready.clear() == sorted(waiting, key=lambda job: (RANK[job[0]], job[1]))
    assert len(ready) == 0


def test_within_a_priority_the_order_is_that_of_arrival() -> None:
    """First in, first out, for each of the five."""
    for priority in PRIORITIES:
        ready: ReadyJobs[int] = ReadyJobs()
        for number in range(50):
            ready.push(priority, number)
        assert [ready.pop() for _ in range(50)] == list(range(50))


def test_an_arriving_higher_job_starts_next() -> None:
    """Before everything lower that waited longer."""
    ready: ReadyJobs[str] = ReadyJobs()
    for number in range(5):
        ready.push("background", f"b{number}")
    ready.push("critical", "c")
    assert ready.pop() == "c"


@pytest.mark.parametrize("before", range(25))
def test_a_higher_job_starts_next_however_many_lower_ones_started_before(before: int) -> None:
    """Starts that passed nobody by earn the lower ones nothing."""
    ready: ReadyJobs[str] = ReadyJobs()
    for _ in range(before + 5):
        ready.push("low", "l")
    assert [ready.pop() for _ in range(before)] == ["l"] * before
    for _ in range(9):
        ready.push("high", "h")
    assert [ready.pop() for _ in range(10)] == ["h"] * 9 + ["l"]


def test_the_highest_that_waits_is_known() -> None:
    """By its rank, as jobs come and go."""
    ready: ReadyJobs[str] = ReadyJobs()
    assert ready.highest is None
    ready.push("low", "l")
    assert ready.highest == RANK["low"]
    ready.push("critical", "c")
    assert ready.highest == RANK["critical"]
    ready.pop()
    assert ready.highest == RANK["low"]


@pytest.mark.parametrize("lowest", PRIORITIES[1:])
def test_the_lowest_progresses_under_a_flood_of_every_higher_priority(lowest: str) -> None:
    """Higher jobs never run out, and each lower job starts after a bounded number of starts."""
    ready: ReadyJobs[str] = ReadyJobs()
    jobs, starts, seen = 20, 0, 0
    higher = PRIORITIES[: RANK[lowest]]
    for number in range(jobs):
        ready.push(lowest, f"low{number}")
    while seen < jobs:
        for priority in higher:
            ready.push(priority, "high")
        seen += ready.pop() != "high"
        starts += 1
        assert starts <= 10 * jobs * 2 * len(higher), "the lowest starves"
    if len(higher) == 1:
        assert starts == 10 * jobs, "one start in ten, no more and no less"


def test_every_lower_job_is_reached_however_many_levels_wait() -> None:
    """Of several lower levels the longest waiting goes first, so that none of them starves the others."""
    ready: ReadyJobs[str] = ReadyJobs()
    for priority in reversed(PRIORITIES[1:]):
        ready.push(priority, priority)
    aged = []
    for _ in range(4 * 10):
        ready.push("critical", "critical")
        if (taken := ready.pop()) != "critical":
            aged.append(taken)
    assert aged == list(reversed(PRIORITIES[1:]))
