"""Progress of handlers of every kind, from ``ctx.progress`` to history and ``jobs show``."""

from __future__ import annotations

import asyncio
import threading
from typing import Any

import pytest

from consumers import Context, Registry
from consumers.worker import Worker
from dispatcher.services.intake import Intake
from dispatcher.services.recorder import Recorder
from tests.conftest import run_services
from tests.processes import succeed
from tests.support import Installation, eventually
from tests.unit import child_handlers
from tests.unit.test_executor import ROOT

pytestmark = pytest.mark.integration

jobs = Registry()
go_on = threading.Event()


@jobs.handler("p.async")
async def in_the_loop(payload: dict[str, Any], ctx: Context) -> None:
    """Half, then all."""
    ctx.progress(1, 2, "half")
    while not go_on.is_set():
        await asyncio.sleep(0.01)
    ctx.progress(2, 2, "all")


@jobs.handler("p.thread")
def in_a_thread(payload: dict[str, Any], ctx: Context) -> None:
    """Half, then all."""
    ctx.progress(1, 2, "half")
    go_on.wait(60)
    ctx.progress(2, 2, "all")


async def test_progress_is_shown_while_it_runs_and_at_its_end(
    installed: Installation, monkeypatch: pytest.MonkeyPatch
) -> None:
    """From the loop, a thread and a child process; the last value comes with the end."""
    monkeypatch.chdir(ROOT)
    key = await installed.create_key()
    settings = installed.settings
    worker = Worker(settings, jobs, "tests.integration.test_progress:jobs")
    go_on.clear()
    async with run_services(Intake(settings), Recorder(settings), worker):
        for kind in ("async", "thread"):
            installed.publish(f"p.{kind}", {"id": kind}, key)
            half = {"_id": f"shop:{kind}", "progress.done": 1, "state": "running"}
            await eventually(lambda half=half: installed.db.jobs.find_one(half), f"{kind} has done half")
        shown = await succeed(installed, "jobs", "show", "async")
        assert "1 of 2 (50%): half" in shown.out
        go_on.set()
        for kind in ("async", "thread"):
            document = await installed.finished(kind)
            progress = document["progress"]
            assert (progress["done"], progress["total"], progress["message"]) == (2, 2, "all")
            assert document["accepted_at"] <= progress["at"] <= document["finished_at"]
            assert (document["state"], len(document["attempts"])) == ("succeeded", 1)
    isolated = Worker(settings, child_handlers.jobs, "tests.unit.child_handlers:jobs")
    async with run_services(Intake(settings), Recorder(settings), isolated):
        installed.publish("progress", {"id": "child"}, key)
        document = await installed.finished("child")
        assert (document["progress"]["done"], document["progress"]["message"]) == (49, "step 49")
