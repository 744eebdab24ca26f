"""What the ledger of `make chaos` reads: the handlers' lines, and the log of writes to history."""

from __future__ import annotations

from typing import Any

import pytest

from tests.faults.executions import Execution, pair
from tests.faults.transitions import Transitions

pytestmark = pytest.mark.unit


def test_pair() -> None:
    """A start and its end are one execution, whatever stands between them; a start alone has no end."""
    step = {"id": "a", "run": 1, "n": 1, "k": 0, "worker": 5}
    lines = [
        step | {"execution": "x", "what": "start", "at": 2.0},
        step | {"execution": "y", "what": "start", "at": 1.0},
        step | {"execution": "x", "what": "end", "at": 3.0},
    ]
    assert pair(lines) == [
        Execution(("a", 1, 1, 0), "y", 5, 1.0, None),
        Execution(("a", 1, 1, 0), "x", 5, 2.0, 3.0),
    ]


def test_transitions() -> None:
    """A state may change until it is final, and in a later run again; not back, and not by deletion."""
    log = Transitions()

    def write(kind: str, **fields: Any) -> None:
        place = {"fullDocument": fields} if kind == "insert" else {"updateDescription": {"updatedFields": fields}}
        log.take({"operationType": kind, "documentKey": {"_id": "a"}, **place})

    write("insert", run=1, state="queued")
    write("update", state="running")
    write("update", state="failed")
    write("update")  # a late attempt joins the list
    write("update", run=2, state="queued")
    write("update", state="succeeded")
    assert (log.violations, log.now) == ([], {"a": (2, "succeeded")})
    write("update", run=1)
    assert len(log.violations) == 1
    log.take({"operationType": "delete", "documentKey": {"_id": "a"}})
    assert len(log.violations) == 2
