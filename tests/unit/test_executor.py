"""One execution: in the loop, in a thread, in a process; whatever a handler does, the worker goes on."""

from __future__ import annotations

import asyncio
import os
import signal
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from pydantic import BaseModel, TypeAdapter

from consumers import Cancel, Context, Registry, Snooze
from consumers.executor import Executor
from dispatcher.core.outcome import Execution
from dispatcher.edges.children import ChildNotStarted
from schemas import Outcome, Trace
from tests.processes import ROOT
from tests.support import eventually
from tests.unit import child_handlers
from tests.unit.child_handlers import TARGET


def context(**fields: Any) -> Context:
    """An execution's context."""
    return Context(**{"id": "j1", "app": "shop", "type": "t", "run": 1, "attempt": 2, "execution": "e1", **fields})


async def run(
    executor: Executor, function: Callable[..., Any], payload: Any = None, timeout: float = 20, **ctx: Any
) -> tuple[Execution, Any]:
    """Declare a function as a handler and run it once."""
    registry = Registry()
    registry.handler("t")(function)
    handler = registry.get("t")
    assert handler is not None
    return await executor.run(handler, payload or {}, context(**ctx), timeout)


def both(function: Callable[[Any], Any]) -> list[Callable[[Any], Any]]:
    """The same behaviour as an async handler and as a sync one."""

    async def in_the_loop(payload: Any) -> Any:
        return function(payload)

    def in_a_thread(payload: Any) -> Any:
        return function(payload)

    return [in_the_loop, in_a_thread]


def raising(error: BaseException) -> Callable[[Any], Any]:
    """A handler that raises."""

    def handler(payload: Any) -> Any:
        raise error

    return handler


class Unreadable(Exception):
    """An exception that cannot even be printed."""

    def __str__(self) -> str:
        raise RuntimeError("no message for you")


async def test_a_result_comes_back(executor: Executor) -> None:
    """From both kinds, a payload and a result of any JSON."""
    for handler in both(lambda payload: {"got": payload, "none": None}):
        execution, result = await run(executor, handler, {"a": [1, 2.5, "é"]})
        assert execution == Execution(Outcome.SUCCEEDED)
        assert result == {"got": {"a": [1, 2.5, "é"]}, "none": None}


async def test_a_sync_handler_runs_in_a_thread_beside_the_loop(executor: Executor) -> None:
    """Two blocking handlers run at once and the loop goes on: they could not meet at the barrier otherwise."""
    barrier = threading.Barrier(3)

    def blocking(payload: Any) -> str:
        barrier.wait(10)
        return threading.current_thread().name

    async def meeting() -> None:
        await asyncio.to_thread(barrier.wait, 10)

    first, second, _ = await asyncio.gather(run(executor, blocking), run(executor, blocking), meeting())
    assert first[1].startswith("handler")
    assert first[1] != second[1]


async def test_snooze_and_cancel_steer_the_job(executor: Executor) -> None:
    """They are not failures."""
    for handler in both(raising(Snooze(30))):
        assert await run(executor, handler) == (Execution(Outcome.SNOOZED, snooze=30.0), None)
    for handler in both(raising(Cancel("why"))):
        execution, _ = await run(executor, handler)
        assert execution.outcome is Outcome.CANCELLED
        assert execution.error is not None
        assert execution.error.message == "why"


@pytest.mark.parametrize(
    "error",
    [
        ValueError("no"),
        SystemExit(3),
        KeyboardInterrupt(),
        asyncio.CancelledError("mine"),
        TimeoutError("of my own"),
        StopIteration("done"),
        StopAsyncIteration(),
        Unreadable(),
        ExceptionGroup("several", [ValueError("a"), OSError("b")]),
        RecursionError("deep"),
        MemoryError(),
        ValueError("half \ud83d of a pair"),
    ],
    ids=lambda error: type(error).__name__,
)
async def test_whatever_is_raised_is_a_failed_attempt(executor: Executor, error: BaseException) -> None:
    """It ends the attempt, may be retried, and never the worker; history can hold what is said of it."""
    for handler in both(raising(error)):
        execution, result = await asyncio.wait_for(run(executor, handler, timeout=15), 10)
        assert (execution.outcome, execution.retryable, result) == (Outcome.FAILED, True, None)
        assert execution.error is not None
        execution.error.model_dump_json().encode()
        assert execution.error.traceback is not None


async def test_an_error_keeps_its_names_along_the_bases(executor: Executor) -> None:
    """So that `on` and `never` can be matched later."""
    for handler in both(raising(ConnectionResetError("gone"))):
        execution, _ = await run(executor, handler)
        assert {"ConnectionResetError", "ConnectionError", "OSError", "Exception"} <= set(execution.names)
        assert execution.error is not None
        assert (execution.error.type, execution.error.message) == ("ConnectionResetError", "gone")


async def test_next_on_nothing_fails_at_once(executor: Executor) -> None:
    """A StopIteration cannot be set on a future: a thread that raises one must not wait for its timeout."""

    def handler(payload: Any) -> Any:
        return next(iter([]))

    execution, _ = await asyncio.wait_for(run(executor, handler, timeout=15), 10)
    assert execution.outcome is Outcome.FAILED
    assert execution.error is not None
    assert "StopIteration" in execution.error.type + (execution.error.traceback or "")


async def test_a_timeout_ends_an_async_handler(executor: Executor) -> None:
    """It is cancelled, and the outcome is a TimeoutError to `on` and `never`."""
    ended = asyncio.Event()

    async def slow(payload: Any) -> None:
        try:
            await asyncio.sleep(60)
        finally:
            ended.set()

    execution, _ = await run(executor, slow, timeout=0.1)
    assert execution.outcome is Outcome.TIMED_OUT
    assert {"TimeoutError", "OSError"} <= set(execution.names)
    assert execution.error is not None
    assert execution.error.type == "TimeoutError"
    assert ended.is_set()


async def test_a_timeout_tells_a_thread_to_stop(executor: Executor) -> None:
    """The worker does not wait for it; the flag in its context says that the result no longer matters."""
    stopped = threading.Event()

    def slow(payload: Any, ctx: Context) -> None:
        deadline = time.monotonic() + 30
        while not ctx.cancelled and time.monotonic() < deadline:
            time.sleep(0.005)
        if ctx.cancelled:
            stopped.set()

    execution, _ = await run(executor, slow, timeout=0.1)
    assert execution.outcome is Outcome.TIMED_OUT
    await eventually(stopped.is_set, "the thread saw the flag")


async def test_a_handlers_own_timeout_is_a_failure(executor: Executor) -> None:
    """Only the attempt's own time makes it timed_out."""

    async def impatient(payload: Any) -> None:
        async with asyncio.timeout(0.01):
            await asyncio.sleep(10)

    execution, _ = await run(executor, impatient)
    assert execution.outcome is Outcome.FAILED
    assert "TimeoutError" in execution.names


async def test_a_stop_of_the_worker_is_no_outcome(executor: Executor) -> None:
    """The cancellation goes through to the worker, which gives the job back."""
    began = asyncio.Event()

    async def slow(payload: Any) -> None:
        began.set()
        await asyncio.sleep(60)

    task = asyncio.create_task(run(executor, slow))
    await began.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task


class Email(BaseModel):
    """A payload model."""

    to: str
    copies: int = 1


async def test_a_payload_that_does_not_fit_is_not_retried(executor: Executor) -> None:
    """It would not fit the next time either; but a validation error inside the handler is like any other."""
    ran = []

    async def handler(payload: Email) -> None:
        ran.append(payload)
        TypeAdapter(int).validate_python("x")

    execution, _ = await run(executor, handler, {"copies": 2})
    assert (execution.outcome, execution.retryable, ran) == (Outcome.FAILED, False, [])
    execution, _ = await run(executor, handler, {"to": "a"})
    assert (execution.outcome, execution.retryable, ran) == (Outcome.FAILED, True, [Email(to="a")])


@pytest.mark.parametrize(
    "result",
    [object(), "x" * 1_001, float("nan"), 2**63, "\ud800", {"a\0": 1}],
    ids=["object", "large", "nan", "64-bit", "surrogate", "nul"],
)
async def test_a_result_that_cannot_be_recorded_fails_without_a_retry(executor: Executor, result: Any) -> None:
    """Running it again would give the same."""
    for handler in both(lambda payload: result):
        execution, recorded = await run(executor, handler)
        assert (execution.outcome, execution.retryable, recorded) == (Outcome.FAILED, False, None)
        assert execution.error is not None
        assert execution.error.type == "ResultError"


async def in_child(
    executor: Executor, job_type: str, payload: dict[str, Any], timeout: float = 60
) -> tuple[Execution, Any]:
    """Run a handler of `child_handlers` in a child process."""
    handler = child_handlers.jobs.get(job_type)
    assert handler is not None
    trace = Trace(traceparent="00-x")
    told = context(type=job_type, tags=("a", "b"), trace=trace)
    async with executor.child() as child:
        return await executor.run(handler, payload, told, timeout, child)


async def test_a_child_process_does_all_that_a_thread_does(executor: Executor) -> None:
    """Results, payload models, context, Snooze, Cancel, errors by name, results that cannot be recorded."""
    _, first = await in_child(executor, "pid", {})
    _, result = await in_child(executor, "order", {"number": "7"})
    assert result == {"number": 7, "attempt": 2, "tags": ["a", "b"], "id": "j1", "trace": "00-x"}
    assert (await in_child(executor, "order.async", {"number": 7}))[1] == 8
    assert (await in_child(executor, "steer", {"how": "snooze"}))[0] == Execution(Outcome.SNOOZED, snooze=7.0)
    assert (await in_child(executor, "steer", {"how": "cancel"}))[0].outcome is Outcome.CANCELLED
    execution, _ = await in_child(executor, "steer", {"how": "error"})
    assert execution.error is not None
    assert (execution.error.type, execution.error.message) == ("OrderError", "no such order")
    assert {"OrderError", "LookupError"} <= set(execution.names)
    for how in ("unstorable", "large"):
        execution, _ = await in_child(executor, "steer", {"how": how})
        assert (execution.outcome, execution.retryable) == (Outcome.FAILED, False)
    execution, _ = await in_child(executor, "order", {"number": "x"})
    assert (execution.outcome, execution.retryable) == (Outcome.FAILED, False)
    # one child served them all, and it is not this process
    _, last = await in_child(executor, "pid", {})
    assert first == last != os.getpid()


async def test_a_child_that_dies_is_a_crash_and_another_takes_its_place(executor: Executor) -> None:
    """Killed by a signal or exited: an attempt with outcome crashed."""
    for how, said in (("kill", "signal 9"), ("exit", "code 3")):
        execution, _ = await in_child(executor, "steer", {"how": how})
        assert (execution.outcome, execution.retryable) == (Outcome.CRASHED, True)
        assert execution.error is not None
        assert said in execution.error.message
    assert isinstance((await in_child(executor, "pid", {}))[1], int)


def alive(pid: int) -> bool:
    """Whether a process still runs (one that waits to be reaped does not)."""
    try:
        status = Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return False
    return status.rpartition(")")[2].split()[0] not in "ZX"


async def test_at_the_timeout_the_child_and_what_it_started_are_gone(executor: Executor, tmp_path: Path) -> None:
    """Killed, not asked: both the handler's process and its grandchild."""
    _, child = await in_child(executor, "pid", {})
    assert alive(child)
    file = tmp_path / "pid"
    execution, _ = await in_child(executor, "hang", {"file": str(file)}, timeout=1.5)
    assert execution.outcome is Outcome.TIMED_OUT
    assert not alive(child)
    grandchild = int(file.read_text())
    await eventually(lambda: not alive(grandchild), "the grandchild is gone")


async def test_closing_ends_idle_children(monkeypatch: pytest.MonkeyPatch) -> None:
    """No process outlives the executor."""
    monkeypatch.chdir(ROOT)
    executor = Executor(1, TARGET, 1_000)
    _, child = await in_child(executor, "pid", {})
    assert alive(child)
    await executor.close()
    assert not alive(child)


async def test_any_handler_can_run_in_a_child(executor: Executor) -> None:
    """One of the loop, one of a thread; and what kills its process there is a crash of the job alone."""
    for job_type in ("loop.pid", "thread.pid"):
        execution, pid = await in_child(executor, job_type, {})
        assert (execution.outcome, pid != os.getpid()) == (Outcome.SUCCEEDED, True)
        handler = child_handlers.jobs.get(job_type)
        assert handler is not None
        execution, pid = await executor.run(handler, {}, context(type=job_type), 20)
        assert pid == os.getpid()
    execution, _ = await in_child(executor, "loop.kill", {})
    assert execution.outcome is Outcome.CRASHED


async def test_a_payload_that_a_child_refuses_is_not_retried(executor: Executor) -> None:
    """Validated in the child alone: validators can kill a process too."""
    execution, _ = await in_child(executor, "order", {"number": "many"})
    assert (execution.outcome, execution.retryable) == (Outcome.FAILED, False)


async def test_a_child_that_cannot_start_is_no_fault_of_the_job(monkeypatch: pytest.MonkeyPatch) -> None:
    """The registry cannot be loaded: that ends no attempt."""
    monkeypatch.chdir(ROOT)
    made = Executor(threads=1, target="tests.unit.child_handlers:missing", max_result_bytes=1_000)
    with pytest.raises(ChildNotStarted):
        await in_child(made, "pid", {})
    await made.close()


async def test_the_start_of_a_child_takes_nothing_of_the_timeout(executor: Executor) -> None:
    """An interpreter takes longer to start than this job may run."""
    execution, _ = await in_child(executor, "pid", {}, timeout=0.1)
    assert execution.outcome is Outcome.SUCCEEDED


async def test_a_child_that_died_between_two_jobs_harms_none(executor: Executor) -> None:
    """Whoever killed it, no job was there."""
    for _ in range(2):
        execution, pid = await in_child(executor, "pid", {})
        assert execution.outcome is Outcome.SUCCEEDED
        os.kill(pid, signal.SIGKILL)
        await eventually(lambda pid=pid: not alive(pid), "the idle child is gone")  # type: ignore[misc]
