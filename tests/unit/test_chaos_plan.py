"""The jobs of `make chaos` and of `make delays`: which there are, and what is to become of each."""

from __future__ import annotations

from collections import Counter

import pytest

from dispatcher.core import ladder
from tests.faults.plan import AGAIN, WEIGHTS, make_delays, make_plan

pytestmark = pytest.mark.unit


def test_plan() -> None:
    """The seed alone decides; every kind and priority occurs, and each job's last step bears its state out."""
    weights = WEIGHTS | {"poison": 1}
    plan = make_plan(2_000, 3, weights=weights)
    assert plan == make_plan(2_000, 3, weights=weights) != make_plan(2_000, 4, weights=weights)
    assert {job.type for job in plan} == {f"chaos.{kind}" for kind in WEIGHTS}
    assert len({job.priority for job in plan}) == 5
    assert {job.payload["ms"] for job in plan} >= {1, 1_000, 10_000}
    states = {"succeeded": "succeeded", "failed": "failed", "timed_out": "timed_out", "crashed": "failed"}
    assert all(states[job.last.outcome] == job.state for job in plan)


def test_ids_and_keys() -> None:
    """Some jobs are sent again, at every distance; some share a key with others, of plain ones alone."""
    plan = make_plan(2_000, 3)
    assert {job.again for job in plan} == {None, *AGAIN}
    keys = Counter(job.key for job in plan if job.key is not None)
    assert set(keys.values()) >= {2, 3, 4}
    assert {(job.type, job.exclusive) for job in plan if job.key is not None} == {
        ("chaos.plain", True),
        ("chaos.plain", False),
    }


def test_delays() -> None:
    """The seed alone decides; retries and snoozes alone and together, and every level up to the longest is passed."""
    plan = make_delays(1_000, 3, 127.875)
    assert plan == make_delays(1_000, 3, 127.875) != make_delays(1_000, 4, 127.875)
    put_off = [step.after for job in plan for step in job.steps[1:]]
    assert {level for delay in put_off for level in range(ladder.LEVELS) if ladder.units(delay) >> level & 1} == {
        *range(10)
    }
    assert {len(job.steps) for job in plan} == {2, 3, 4}
    outcomes = {frozenset(step.outcome for step in job.steps[:-1]) for job in plan}
    assert outcomes == {frozenset({"failed"}), frozenset({"snoozed"}), frozenset({"failed", "snoozed"})}
    assert all((job.steps[0].after, job.last.outcome, job.state) == (0.0, "succeeded", "succeeded") for job in plan)


def test_a_plan_of_delays_says_when_each_step_is_due() -> None:
    """Each step comes as long after the one before as the payload, or for a failure the policy, says."""
    for job in make_delays(200, 7, 4.0):
        assert len(job.payload["hops"]) == len(job.steps) - 1
        for hop, before, step in zip(job.payload["hops"], job.steps, job.steps[1:], strict=False):
            assert before.outcome == ("failed" if hop is None else "snoozed")
            assert step.after == (job.fields["retry"]["base"] if hop is None else hop)
            assert step[:2] == ((before.n + 1, before.k) if hop is None else (before.n, before.k + 1))
