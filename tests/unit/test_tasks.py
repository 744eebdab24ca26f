"""Async handlers that make something of their cancellation: what they return is dropped, and none keeps its place."""

from __future__ import annotations

import asyncio
import subprocess
import sys
from collections.abc import AsyncIterator, Callable
from typing import Any

import pytest

from consumers import Cancel, Context, Registry, Snooze, tasks
from consumers.executor import Executor
from consumers.running import Stop
from dispatcher.core.cancelling import Tombstone
from dispatcher.core.outcome import Execution
from dispatcher.edges import metrics
from schemas import Outcome
from tests.support import eventually
from tests.unit.test_executor import context, run

TOMBSTONE = Tombstone("shop:j1", 1, "no longer wanted")


def abandoned() -> float:
    """What the metric says."""
    return float(metrics.tasks_abandoned._value.get())


@pytest.fixture
async def executor(monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Executor]:
    """An executor that does not wait for long."""
    monkeypatch.setattr(tasks, "CLEAN_UP", 0.1)
    made = Executor(threads=1, target="", max_result_bytes=1_000)
    yield made
    await made.close()


def catching(then: Callable[[], Any]) -> Callable[[Any], Any]:
    """A handler that catches its cancellation, and then does this."""

    async def handler(payload: Any) -> Any:
        try:
            await asyncio.sleep(60)
        except asyncio.CancelledError:
            return then()

    return handler


def raises(error: BaseException) -> Callable[[], Any]:
    """What raises."""

    def then() -> Any:
        raise error

    return then


AFTERWARDS = {
    "returns": lambda: "a result",
    "fails": raises(ValueError("while cleaning up")),
    "snoozes": raises(Snooze(5)),
    "cancels": raises(Cancel("done")),
    "exits": raises(SystemExit(1)),
    "times out": raises(TimeoutError()),
}


@pytest.mark.parametrize("then", AFTERWARDS.values(), ids=AFTERWARDS)
async def test_what_a_handler_does_after_its_timeout_makes_no_difference(
    executor: Executor, then: Callable[[], Any]
) -> None:
    """It ran out of time, whatever it returns or raises then; the result is dropped."""
    execution, result = await run(executor, catching(then), timeout=0.1)
    assert (execution.outcome, result) == (Outcome.TIMED_OUT, None)
    assert execution.error is not None
    assert execution.error.type == "TimeoutError"


async def stoppable(executor: Executor, function: Callable[..., Any], stops: list[Stop]) -> tuple[Execution, Any]:
    """Run a handler that an operator may cancel."""
    registry = Registry()
    registry.handler("t")(function)
    handler = registry.get("t")
    assert handler is not None
    stops.append(Stop())
    return await executor.run(handler, {}, context(), 20, stop=stops[0])


@pytest.mark.parametrize("then", AFTERWARDS.values(), ids=AFTERWARDS)
async def test_what_a_handler_does_after_an_operators_cancel_makes_no_difference(
    executor: Executor, then: Callable[[], Any]
) -> None:
    """Its outcome is cancelled, with the operator's reason."""
    began = asyncio.Event()
    caught = catching(then)

    async def handler(payload: Any) -> Any:
        began.set()
        return await caught(payload)

    stops: list[Stop] = []
    task = asyncio.create_task(stoppable(executor, handler, stops))
    await began.wait()
    stops[0].ask(TOMBSTONE)
    execution, result = await asyncio.wait_for(task, 10)
    assert (execution.outcome, execution.error, result) == (Outcome.CANCELLED, TOMBSTONE.error, None)


class Stubborn:
    """A handler that does not end however often it is cancelled, until it is let go."""

    def __init__(self) -> None:
        self.began, self.let_go = asyncio.Event(), asyncio.Event()

    async def handler(self, payload: Any, ctx: Context) -> str:
        """Goes on."""
        self.began.set()
        while not self.let_go.is_set():
            try:
                await self.let_go.wait()
            except asyncio.CancelledError:
                assert ctx.cancelled
        return "too late"


async def test_a_handler_that_goes_on_for_good_is_left_to_itself(
    executor: Executor, caplog: pytest.LogCaptureFixture
) -> None:
    """The attempt has timed out, the worker says so, the metric counts it until it ends."""
    caplog.set_level("INFO")
    stubborn, before = Stubborn(), abandoned()
    execution, result = await asyncio.wait_for(run(executor, stubborn.handler, timeout=0.05), 10)
    assert (execution.outcome, result, abandoned()) == (Outcome.TIMED_OUT, None, before + 1)
    assert "a task that was cancelled goes on" in caplog.text
    stubborn.let_go.set()
    await eventually(lambda: abandoned() == before, "it has ended")
    assert "a task that was left to itself has ended" in caplog.text


async def test_a_handler_that_goes_on_does_not_keep_the_worker_from_stopping(executor: Executor) -> None:
    """The stop goes through after its time for cleaning up, however often it is told."""
    for more in (0, 1):
        stubborn, before = Stubborn(), abandoned()
        task = asyncio.create_task(run(executor, stubborn.handler))
        await stubborn.began.wait()
        task.cancel()
        await asyncio.sleep(0)
        if more:
            task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await asyncio.wait_for(asyncio.shield(task), 10)
        assert abandoned() == before + 1
        stubborn.let_go.set()
        await eventually(lambda before=before: abandoned() == before, "it has ended")  # type: ignore[misc]


async def test_a_stop_of_the_worker_spends_nothing_though_the_timeout_comes_meanwhile(
    executor: Executor, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What came first counts: the stop. And a timeout stays one when the worker stops during the cleaning up."""
    monkeypatch.setattr(tasks, "CLEAN_UP", 0.5)
    stubborn = Stubborn()
    task = asyncio.create_task(run(executor, stubborn.handler, timeout=0.2))
    await stubborn.began.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await asyncio.wait_for(task, 10)
    stubborn.let_go.set()

    cleaning = asyncio.Event()

    async def cleans_up(payload: Any) -> None:
        try:
            await asyncio.sleep(60)
        finally:
            cleaning.set()
            await asyncio.sleep(60)

    task = asyncio.create_task(run(executor, cleans_up, timeout=0.05))
    await cleaning.wait()
    task.cancel()
    execution, _ = await asyncio.wait_for(task, 10)
    assert execution.outcome is Outcome.TIMED_OUT


async def test_finally_blocks_have_their_time(executor: Executor, monkeypatch: pytest.MonkeyPatch) -> None:
    """The attempt ends when they have run."""
    monkeypatch.setattr(tasks, "CLEAN_UP", 20)
    cleaned = []

    async def handler(payload: Any) -> None:
        try:
            await asyncio.sleep(60)
        finally:
            await asyncio.sleep(0.2)
            cleaned.append(True)

    before = abandoned()
    execution, _ = await run(executor, handler, timeout=0.05)
    assert (execution.outcome, cleaned, abandoned()) == (Outcome.TIMED_OUT, [True], before)


GOES_ON = """
import asyncio
from consumers import Registry, tasks
from consumers.context import Context
from consumers.executor import Executor
tasks.CLEAN_UP = 0.1
registry = Registry()
@registry.handler("t")
async def handler(payload):
    while True:
        try:
            await asyncio.sleep(600)
        except asyncio.CancelledError:
            pass
async def main():
    executor = Executor(1, "", 1000)
    context = Context("j", "a", "t", 1, 1, "e")
    print((await executor.run(registry.get("t"), {}, context, 0.1))[0].outcome, flush=True)
    await executor.close()
asyncio.run(main())
"""


def test_a_handler_that_goes_on_does_not_keep_its_process_alive() -> None:
    """Nor does anything complain of it at the end."""
    done = subprocess.run([sys.executable, "-c", GOES_ON], capture_output=True, text=True, timeout=30)
    assert (done.returncode, done.stdout.strip()) == (0, "timed_out")
    assert "Traceback" not in done.stderr
    assert "pending" not in done.stderr
