"""Running one handler once: in the event loop, in a thread or in a child process, under its timeout."""

from __future__ import annotations

import asyncio
import contextvars
from collections.abc import Awaitable, Callable
from contextlib import AbstractAsyncContextManager
from functools import partial
from typing import Any

from pydantic import ValidationError

from consumers.context import Context
from consumers.control import Cancel, Snooze
from consumers.failures import clean, describe
from consumers.processes import ChildCrashed, Logging, ProcessPool, call
from consumers.registry import Handler
from consumers.results import ResultError, storable
from consumers.running import Stop
from consumers.tasks import LeftTasks, TaskCall
from consumers.threads import Call, Threads
from dispatcher.core.outcome import Execution
from dispatcher.core.retry import class_names, error_names
from dispatcher.edges import log
from dispatcher.edges.children import Child
from schemas import ErrorInfo, Outcome

_logger = log.get("worker")


class Executor:
    """Runs handlers and turns whatever they do into an `Execution`.

    Args:
        threads: most sync handlers at once.
        target: ``module:registry``, for child processes.
        max_result_bytes: largest recorded result.
        logging: level and format of the log, for child processes.
    """

    def __init__(self, threads: int, target: str, max_result_bytes: int, logging: Logging = ("info", "auto")) -> None:
        self._threads = Threads(threads)
        self._left = LeftTasks()
        self._processes = ProcessPool(target, max_result_bytes, logging)
        self._max_result_bytes = max_result_bytes

    async def close(self) -> None:
        """Stop the child processes; threads and tasks that still run are left to end with the process."""
        self._threads.shutdown(wait=False)
        await self._left.close()
        await self._processes.close()

    def child(self) -> AbstractAsyncContextManager[Child]:
        """A child process for one execution, ready before that begins; `ChildNotStarted` is no fault of the job."""
        return self._processes.child()

    async def run(
        self,
        handler: Handler,
        payload: dict[str, Any],
        context: Context,
        timeout: float,
        child: Child | None = None,
        stop: Stop | None = None,
    ) -> tuple[Execution, Any]:
        """One execution, and the result to record.

        Args:
            handler, payload, context: what to run.
            timeout: seconds that it may take.
            child: where to run it; without one, in the event loop or in a thread, as the handler asks.
            stop: lets an operator end it; whatever it does then, its outcome is cancelled and its result dropped.

        Raises:
            asyncio.CancelledError: the worker stops.
        """
        if child is not None:
            return await self._limited(self._in_process(child, handler, payload, context), context, timeout, stop)
        try:
            arguments = handler.arguments(payload, context)
        except ValidationError as error:
            return _failed(error, retryable=False), None
        except BaseException as error:  # a validator may raise anything
            return _failed(error), None
        if handler.kind == "async":
            return await self._in_task(handler, arguments, context, timeout, stop)
        return await self._limited(self._in_thread(handler, arguments, context), context, timeout, stop)

    async def _limited(
        self, handling: Awaitable[Any], context: Context, timeout: float, stop: Stop | None
    ) -> tuple[Execution, Any]:
        stop = stop or Stop()
        ended = await self._outcome(handling, context, timeout, stop)
        if stop.tombstone is not None:
            return Execution(Outcome.CANCELLED, stop.tombstone.error), None
        return ended

    async def _outcome(
        self, handling: Awaitable[Any], context: Context, timeout: float, stop: Stop
    ) -> tuple[Execution, Any]:
        limit = asyncio.timeout(timeout)
        try:
            async with limit:
                result = await handling
            stop.close()
            return Execution(Outcome.SUCCEEDED), storable(result, self._max_result_bytes)
        except BaseException as error:  # a handler may raise SystemExit: that ends its job, not the worker
            stop.close()
            if limit.expired():  # whatever it made of that
                return _timed_out(timeout), None
            if isinstance(error, asyncio.CancelledError) and _being_cancelled():
                raise
            return _ended(error), None
        finally:
            context.cancel()

    async def _in_task(
        self, handler: Handler, arguments: tuple[Any, ...], context: Context, timeout: float, stop: Stop | None
    ) -> tuple[Execution, Any]:
        running = TaskCall(partial(handler.function, *arguments))
        try:
            return await self._limited(running.result(), context, timeout, stop)
        finally:
            if (left := await running.end()) is not None:
                self._left.add(left)
                _told_of("a task that was cancelled goes on; its result is dropped, and its place is free", context)

    async def _in_thread(self, handler: Handler, arguments: tuple[Any, ...], context: Context) -> Any:
        call = contextvars.copy_context().run
        running = Call(partial(call, _plainly, handler.function, *arguments))
        try:
            return await asyncio.get_running_loop().run_in_executor(self._threads, running)
        except asyncio.CancelledError:
            if _being_cancelled() and running.abandon():
                _told_of(
                    "a thread cannot be stopped; its result is dropped, and another thread takes its place", context
                )
            raise

    async def _in_process(self, child: Child, handler: Handler, payload: dict[str, Any], context: Context) -> Any:
        answer = await call(child, handler.type, payload, context)
        match answer["outcome"]:
            case "result":
                return answer["result"]
            case "snooze":
                raise Snooze(answer["seconds"])
            case "cancel":
                raise Cancel(answer["reason"])
            case "unstorable":
                raise ResultError(answer["message"])
        names, retryable = tuple(answer["names"]), answer["outcome"] != "invalid"
        raise RemoteError(ErrorInfo.model_validate(answer["error"]), names, retryable)


def _told_of(what: str, context: Context) -> None:
    _logger.warning(what, type=context.type, app=context.app, job=context.id, attempt=context.attempt)


def _plainly(function: Callable[..., Any], *arguments: Any) -> Any:
    """Call a function; a StopIteration, which no future can hold, becomes a RuntimeError as it does in a coroutine."""
    try:
        return function(*arguments)
    except StopIteration as error:
        raise RuntimeError("the handler raised StopIteration") from error


class RemoteError(Exception):
    """A handler in a child process raised."""

    def __init__(self, error: ErrorInfo, names: tuple[str, ...], retryable: bool) -> None:
        super().__init__(error.message)
        self.error = error
        self.names = names
        self.retryable = retryable


def _being_cancelled() -> bool:
    """Whether the worker cancelled this task, rather than the handler raising CancelledError by itself."""
    task = asyncio.current_task()
    return task is not None and task.cancelling() > 0


def _ended(error: BaseException) -> Execution:
    """What an exception that left the handler means, however it is made: a subclass may lack what ours have."""
    try:
        return _meaning(error)
    except Exception as broken:
        said = f"what the handler raised cannot be read: {describe(broken).message}"
        unreadable = ErrorInfo(type=clean(type(error).__name__, 200), message=clean(said, 2_000))
        return Execution(Outcome.FAILED, unreadable, class_names(type(error)))


def _meaning(error: BaseException) -> Execution:
    match error:
        case Snooze():
            return Execution(Outcome.SNOOZED, snooze=Snooze(error.seconds).seconds)
        case Cancel():
            return Execution(Outcome.CANCELLED, ErrorInfo(type="Cancel", message=clean(str(error.reason), 2_000)))
        case ResultError():
            return _failed(error, retryable=False)
        case ChildCrashed():
            return Execution(Outcome.CRASHED, describe(error), class_names(type(error)))
        case RemoteError():
            return Execution(Outcome.FAILED, error.error, error.names, retryable=error.retryable)
        case _:
            return _failed(error)


def _failed(error: BaseException, *, retryable: bool = True) -> Execution:
    return Execution(Outcome.FAILED, describe(error), error_names(error), retryable=retryable)


def _timed_out(timeout: float) -> Execution:
    error = ErrorInfo(type="TimeoutError", message=f"the attempt ran longer than its timeout of {timeout:g} s")
    return Execution(Outcome.TIMED_OUT, error, class_names(TimeoutError))
