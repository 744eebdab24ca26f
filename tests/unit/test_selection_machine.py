"""The waiting jobs of a worker as a state machine, beside a plain list that is searched anew each time."""

from __future__ import annotations

import itertools
from collections import Counter

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from dispatcher.core.selection import ReadyJobs
from schemas import PRIORITIES

RANK = {priority: rank for rank, priority in enumerate(PRIORITIES)}
PRIORITY = st.sampled_from(PRIORITIES)
Job = tuple[str, int]


def in_order(jobs: list[Job]) -> list[Job]:
    """The highest priority first, within one the order of arrival."""
    return sorted(jobs, key=lambda job: (RANK[job[0]], job[1]))


class Waiting(RuleBasedStateMachine):
    """Jobs arrive, start, and are taken out all at once, as when a worker stops."""

    def __init__(self) -> None:
        super().__init__()
        self.ready: ReadyJobs[Job] = ReadyJobs()
        self.jobs: list[Job] = []
        self.arrived = 0
        self.starts = 0
        self.given: Counter[Job] = Counter()
        self.lower_starts: list[int] = []
        #: Starts since a lower job waited beside a higher one and none was taken.
        self.patience = 0

    @rule(priority=PRIORITY, count=st.integers(1, 12))
    def arrive(self, priority: str, count: int) -> None:
        """Some jobs of a priority."""
        for _ in range(count):
            self.arrived += 1
            self.ready.push(priority, (priority, self.arrived))
            self.jobs.append((priority, self.arrived))

    @precondition(lambda self: self.jobs)
    @rule(count=st.integers(1, 15))
    def start(self, count: int) -> None:
        """The next jobs start: the highest, or instead the longest waiting lower one."""
        for _ in range(min(count, len(self.jobs))):
            first = in_order(self.jobs)[0]
            lower = [job for job in self.jobs if job[0] != first[0]]
            self.starts += 1
            taken = self.ready.pop()
            if taken == first:
                self.patience = self.patience + 1 if lower else 0
                assert self.patience < 10, "ten starts in a row passed a lower job by"
            else:
                assert taken == min(lower, key=lambda job: job[1])
                self.lower_starts.append(self.starts)
                self.patience = 0
            self.jobs.remove(taken)
            self.given[taken] += 1

    @precondition(lambda self: not self.jobs)
    @rule()
    def start_nothing(self) -> None:
        """Nothing waits: nothing is given, and nothing changes."""
        with pytest.raises(IndexError):
            self.ready.pop()

    @rule()
    def clear(self) -> None:
        """Everything that waits, once, in the order of starts without ageing."""
        taken = self.ready.clear()
        assert taken == in_order(self.jobs)
        self.given.update(taken)
        self.jobs = []
        self.patience = 0
        assert self.ready.clear() == []

    @invariant()
    def nothing_is_lost_or_doubled(self) -> None:
        """What arrived waits or was given, each once; at most one start in ten went to a lower job."""
        assert len(self.ready) == len(self.jobs) == self.arrived - self.given.total()
        assert bool(self.ready) is bool(self.jobs)
        assert set(self.given.values()) <= {1}
        assert all(b - a >= 10 for a, b in itertools.pairwise(self.lower_starts))

    def teardown(self) -> None:
        """In the end every job was given once."""
        self.clear()
        assert len(self.given) == self.arrived


TestWaiting = Waiting.TestCase
TestWaiting.settings = settings(max_examples=40, stateful_step_count=30)


@given(st.lists(PRIORITY, min_size=1, max_size=30))
def test_every_job_starts_however_many_higher_ones_arrive(waiting: list[str]) -> None:
    """Before each start a new higher job arrives, and yet all that waited before start: one in ten starts."""
    ready: ReadyJobs[int] = ReadyJobs()
    lower = [priority for priority in waiting if priority != "critical"]
    for number, priority in enumerate(lower):
        ready.push(priority, number)
    left, starts = set(range(len(lower))), 0
    while left:
        starts += 1
        assert starts <= 10 * len(lower), "somebody starves"
        ready.push("critical", -1)
        taken = ready.pop()
        if taken >= 0:
            assert taken == min(left), "the longest waiting first, whatever its priority"
            left.remove(taken)
    assert starts == 10 * len(lower)
