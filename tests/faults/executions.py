"""What the handlers wrote outside the system: each execution with its process and times."""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

#: Names the file in a worker's environment; one line a start or end. Lines this short are written whole by O_APPEND.
LEDGER_VARIABLE = "TEST_LEDGER"

#: A step of a job: id, run, attempt, snoozes before it.
StepId = tuple[str, int, int, int]


@dataclass(frozen=True, slots=True)
class Execution:
    """One execution; times in seconds since the epoch. ``ended`` is None where its process did not get that far."""

    step: StepId
    execution: str
    #: The worker's process; the handler may have run in a child of it.
    worker: int
    started: float
    ended: float | None
    #: Whether the handler ran in a child process of the worker.
    in_child: bool = False

    @property
    def job(self) -> str:
        """The job's id."""
        return self.step[0]


def read_executions(path: Path) -> list[Execution]:
    """All of them, in the order of their starts. A line cut by a kill cannot occur: each is one write."""
    if not path.exists():
        return []
    with path.open() as file:
        return pair(json.loads(line) for line in file)


def pair(lines: Iterable[Mapping[str, Any]]) -> list[Execution]:
    """Executions of lines: a start, and its end where there is one."""
    starts: dict[str, Mapping[str, Any]] = {}
    ends: dict[str, float] = {}
    for line in lines:
        if line["what"] == "start":
            starts[line["execution"]] = line
        else:
            ends[line["execution"]] = line["at"]
    found = [
        Execution(
            (s["id"], s["run"], s["n"], s["k"]),
            name,
            s["worker"],
            s["at"],
            ends.get(name),
            s.get("child", False),
        )
        for name, s in starts.items()
    ]
    return sorted(found, key=lambda e: e.started)


def by_step(executions: Iterable[Execution]) -> dict[StepId, list[Execution]]:
    """The executions of each step, in the order of their starts."""
    steps: dict[StepId, list[Execution]] = defaultdict(list)
    for execution in executions:
        steps[execution.step].append(execution)
    return steps
