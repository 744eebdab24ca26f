"""Handlers in a real worker process: what SIGTERM does to them, and what a type without a handler does."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from dispatcher.services.intake import Intake
from dispatcher.services.recorder import Recorder
from tests.conftest import run_services
from tests.processes import ServiceProcess
from tests.support import Installation, eventually

pytestmark = pytest.mark.integration

HANDLERS = """
import asyncio, pathlib
from consumers import Context, Registry

jobs = Registry()
here = pathlib.Path(__file__).parent

@jobs.handler("g.short")
async def short(payload: dict) -> str:
    while not (here / "go").exists():
        await asyncio.sleep(0.02)
    return "finished"

@jobs.handler("g.long")
async def long(payload: dict, ctx: Context) -> str:
    if (here / "again").exists():
        return f"attempt {ctx.attempt}"
    await asyncio.sleep(600)

@jobs.handler("g.thread")
def thread(payload: dict, ctx: Context) -> str:
    import time
    if (here / "again").exists():
        return f"attempt {ctx.attempt}"
    time.sleep(600)
"""


async def test_sigterm_lets_finish_what_can_and_gives_the_rest_back(installed: Installation, tmp_path: Path) -> None:
    """Within the grace period; what is given back runs elsewhere with the same attempt number."""
    (tmp_path / "grace_handlers.py").write_text(HANDLERS)
    key, settings = await installed.create_key(), installed.settings
    env = {"DISPATCHER_WORKER__GRACE": "3", "DISPATCHER_WORKER__CONCURRENCY": "3"}
    async with run_services(Intake(settings), Recorder(settings)):
        async with ServiceProcess(installed, "worker", "grace_handlers:jobs", env=env, folder=tmp_path) as worker:
            await worker.ready()
            for kind in ("short", "long", "thread"):
                installed.publish(f"g.{kind}", {"id": kind}, key)
            running = {"_id": {"$in": ["shop:short", "shop:long", "shop:thread"]}, "state": "running"}
            await eventually(lambda: installed.db.jobs.count_documents(running) == 3, "all three run")
            installed.publish("g.long", {"id": "held"}, key)
            stopping = asyncio.create_task(worker.terminate(timeout=30))
            (tmp_path / "go").touch()
            assert await stopping == 0
        assert (await installed.finished("short"))["result"] == "finished"
        (tmp_path / "again").touch()
        async with ServiceProcess(installed, "worker", "grace_handlers:jobs", env=env, folder=tmp_path):
            for job in ("long", "thread", "held"):
                document = await installed.finished(job)
                assert (document["state"], document["result"]) == ("succeeded", "attempt 1"), job
                assert {attempt["n"] for attempt in document["attempts"]} == {1}
                assert [attempt["outcome"] for attempt in document["attempts"]][-1] == "succeeded"


async def test_a_type_without_a_handler_is_put_off_then_failed_and_parked(
    installed: Installation, tmp_path: Path
) -> None:
    """No attempt is spent, and none is made; the log says what is served, and once which type has no handler."""
    (tmp_path / "grace_handlers.py").write_text(HANDLERS)
    key, settings = await installed.create_key(), installed.settings
    env = {"DISPATCHER_WORKER__NO_HANDLER_DELAY": "0.25", "DISPATCHER_WORKER__NO_HANDLER_LIMIT": "2"}
    worker = ServiceProcess(installed, "worker", "grace_handlers:jobs", env=env, folder=tmp_path)
    async with run_services(Intake(settings), Recorder(settings)), worker:
        installed.publish("g.nobody", {"id": "nobody"}, key)
        waiting = {"_id": "shop:nobody", "state": "scheduled", "error.type": "no_handler"}
        await eventually(lambda: installed.db.jobs.find_one(waiting), "history says why it waits")
        document = await installed.finished("nobody")
        served = await worker.logged("serving")
        unhandled = [line["type"] for line in worker.lines() if line["event"].startswith("no handler")]
    assert (served["lanes"], served["handlers"] > 0) == (list(settings.worker_lanes), True)
    assert unhandled == ["g.nobody"]
    assert (document["state"], document["error"]["type"], document["attempts"]) == ("failed", "no_handler", [])
    assert document["finished_at"].timestamp() - document["accepted_at"].timestamp() >= 1
    assert installed.depth(installed.names.parked("default")) == 1
