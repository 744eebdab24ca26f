"""What the ledger of chaos makes of executions in child processes."""

from __future__ import annotations

import pytest

from tests.faults.executions import pair
from tests.faults.fleet import Death
from tests.faults.ledger import Evidence, interrupted, unfinished
from tests.faults.load import Published
from tests.faults.plan import make_plan


@pytest.mark.parametrize(
    ("kind", "child", "died", "ended"),
    [
        ("slow", True, None, True),
        ("slow", True, 0.2, False),
        ("slow", True, 1.0, True),
        ("slow", False, None, False),
        ("plain", True, None, False),
    ],
)
def test_what_ran_out_of_time_in_a_child_has_ended(kind: str, child: bool, died: float | None, ended: bool) -> None:
    """Its process was killed, so it could not write so; where the worker died before that, nobody knows."""
    (job,) = make_plan(1, 1, weights={kind: 1})
    line = {"id": job.id, "run": 1, "n": 1, "k": 0, "execution": "e", "what": "start", "at": 5.0, "worker": 7}
    evidence = Evidence(
        published=Published(jobs={job.id: job}, attempted={job.id: 1.0}, acknowledged={job.id}),
        executions=pair([line | {"child": child}]),
        documents=[],
        deaths=[Death("worker-1", 7, 5.0 + died, ours=True)] if died else [],
    )
    assert (interrupted(evidence) == []) is ended
    assert (unfinished(evidence) == []) is (ended or died is not None)
