"""Threads of sync handlers: those that hang are replaced, and told of."""

from __future__ import annotations

import asyncio
import gc
import subprocess
import sys
import threading
import weakref
from typing import Any

import pytest

from consumers.executor import Executor
from dispatcher.edges import metrics
from schemas import Outcome
from tests.support import eventually
from tests.unit.test_executor import run


def abandoned() -> float:
    """What the metric says."""
    return float(metrics.threads_abandoned._value.get())


async def test_when_every_thread_hangs_the_next_handlers_run_all_the_same(caplog: pytest.LogCaptureFixture) -> None:
    """As many at once as before; the metric counts the hanging ones until they end."""
    caplog.set_level("INFO")
    executor = Executor(threads=2, target="", max_result_bytes=1_000)
    let_go, before = threading.Event(), abandoned()

    def hangs(payload: Any) -> str:
        let_go.wait(60)
        return "too late"

    hung = [run(executor, hangs, timeout=0.05) for _ in range(4)]
    assert [execution.outcome for execution, _ in await asyncio.gather(*hung)] == [Outcome.TIMED_OUT] * 4
    assert abandoned() == before + 4
    assert caplog.text.count("a thread cannot be stopped") == 4
    barrier = threading.Barrier(2)
    meeting = [run(executor, lambda payload: barrier.wait(30)) for _ in range(2)]
    assert [execution.outcome for execution, _ in await asyncio.gather(*meeting)] == [Outcome.SUCCEEDED] * 2
    let_go.set()
    await eventually(lambda: abandoned() == before, "the threads that hung have ended")
    await executor.close()


async def test_threads_are_used_again_and_end_with_the_executor() -> None:
    """One after the other needs one thread; none stays behind, and none keeps what a job left."""
    executor = Executor(threads=3, target="", max_result_bytes=1_000)
    left: list[weakref.ref[Any]] = []

    class Thing:
        pass

    def handler(payload: Any) -> str:
        thing = Thing()
        left.append(weakref.ref(thing))
        return threading.current_thread().name

    names = []
    for _ in range(5):
        names.append((await run(executor, handler))[1])
        await asyncio.sleep(0.01)
    assert set(names) == {names[-1]}
    gc.collect()
    assert [ref() for ref in left] == [None] * 5
    await executor.close()
    await eventually(lambda: names[-1] not in {thread.name for thread in threading.enumerate()}, "it has ended")


HANGS = """
import asyncio, time
from consumers import Registry
from consumers.context import Context
from consumers.executor import Executor
registry = Registry()
registry.handler("t")(lambda payload: time.sleep(600))
async def main():
    context = Context(id="j", app="a", type="t", run=1, attempt=1, execution="e")
    executor = Executor(1, "", 1000)
    print(await executor.run(registry.get("t"), {}, context, 0.1))
    await executor.close()
asyncio.run(main())
"""


def test_a_thread_that_hangs_does_not_keep_the_process_from_ending() -> None:
    """A worker must stop within its grace period, whatever its handlers do."""
    finished = subprocess.run([sys.executable, "-c", HANGS], capture_output=True, text=True, timeout=60)
    assert finished.returncode == 0
    assert "timed_out" in finished.stdout
