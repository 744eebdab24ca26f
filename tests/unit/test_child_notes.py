"""What a child process says while its handler runs: progress, and lines of the log."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import pytest

from consumers.executor import Executor
from consumers.progress import Progress
from schemas import Outcome
from tests.processes import ROOT
from tests.unit import child_handlers
from tests.unit.child_handlers import TARGET
from tests.unit.test_executor import context, in_child


async def test_a_child_reports_its_progress_before_its_end(executor: Executor) -> None:
    """The last value too; what a thread of it says later belongs to no other job."""
    seen: list[Progress] = []
    handler = child_handlers.jobs.get("progress")
    assert handler is not None
    async with executor.child() as child:
        execution, _ = await executor.run(handler, {}, context(type="progress", _tell=seen.append), 60, child)
        assert execution.outcome is Outcome.SUCCEEDED
        assert (seen[0].done, seen[-1]) == (0, Progress(49, 50, "step 49"))
        other = child_handlers.jobs.get("logs")
        assert other is not None
        later: list[Progress] = []
        await asyncio.sleep(0.4)  # the thread's report is due
        await executor.run(other, {}, context(type="logs", execution="e2", _tell=later.append), 60, child)
        assert later == []


async def test_a_child_logs_as_the_worker_does(monkeypatch: pytest.MonkeyPatch, capfd: Any) -> None:
    """On the worker's stderr, at its level and in its format, with the job's id."""
    monkeypatch.chdir(ROOT)
    made = Executor(1, TARGET, 1_000, ("info", "json"))
    await in_child(made, "logs", {})
    await made.close()
    (line,) = [json.loads(line) for line in capfd.readouterr().err.splitlines() if "from the child" in line]
    assert (line["level"], line["number"], line["job"], line["attempt"]) == ("info", 7, "j1", 2)
