"""Async handlers that catch their cancellation and go on: the worker's places, its history and its stop."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from consumers import Registry, Retry, tasks
from consumers.worker import Worker
from dispatcher.services.intake import Intake
from dispatcher.services.recorder import Recorder
from tests.conftest import run_services
from tests.support import Installation, eventually

pytestmark = pytest.mark.integration

jobs = Registry()
let_go = asyncio.Event()
began: list[str] = []


@jobs.handler("stubborn", retry=Retry(max_attempts=1))
async def stubborn(payload: dict[str, Any]) -> str:
    """Goes on until it is let go."""
    began.append(payload["name"])
    while not let_go.is_set():
        try:
            await let_go.wait()
        except asyncio.CancelledError:
            continue
    return "too late"


@jobs.handler("plain")
async def plain(payload: dict[str, Any]) -> str:
    """Ends at once."""
    return "done"


async def test_a_handler_that_goes_on_keeps_neither_place_nor_stop(
    installed: Installation, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its attempt timed out, the only place takes the next job; the worker stops, and gives back what goes on then."""
    monkeypatch.setattr(tasks, "CLEAN_UP", 0.2)
    key, settings = await installed.create_key(), installed.settings
    place = settings.worker.model_copy(update={"concurrency": 1, "grace": 0.1})
    one = settings.model_copy(update={"worker": place})
    async with run_services(Intake(settings), Recorder(settings)):
        async with run_services(Worker(one, jobs, "nowhere:jobs")):
            installed.publish("stubborn", {"id": "hangs", "timeout": 0.3, "payload": {"name": "hangs"}}, key)
            assert (await installed.finished("hangs"))["state"] == "timed_out"
            installed.publish("plain", {"id": "next"}, key)
            assert (await installed.finished("next"))["result"] == "done"
            installed.publish("stubborn", {"id": "runs", "payload": {"name": "runs"}}, key)
            await eventually(lambda: "runs" in began, "it runs")
        let_go.set()
        async with run_services(Worker(one, jobs, "nowhere:jobs")):
            again = await installed.finished("runs")
    assert (again["state"], [a["n"] for a in again["attempts"]]) == ("succeeded", [1, 1])
    assert [a["outcome"] for a in again["attempts"]] == [None, "succeeded"]
    assert [a["outcome"] for a in (await installed.finished("hangs"))["attempts"]] == ["timed_out"]
