"""Running one handler once: in the event loop, in a thread or in a child process, under its timeout."""

from __future__ import annotations

import asyncio
import contextvars
from collections.abc import Awaitable, Callable, Sequence
from contextlib import AbstractAsyncContextManager
from functools import partial
from typing import Any

from pydantic import ValidationError

from consumers.batches import entries, sort_out
from consumers.context import BatchContext, Context, batch_context
from consumers.control import Cancel, Snooze
from consumers.failures import clean, describe
from consumers.processes import ChildCrashed, Logging, ProcessPool, call, call_batch
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
        self._storable = partial(storable, max_bytes=max_result_bytes)

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
        """One execution of one job, and the result to record; a batch handler is given a list of one.

        Args:
            handler, payload, context: what to run.
            timeout: seconds that it may take.
            child: where to run it; without one, in the event loop or in a thread, as the handler asks.
            stop: lets an operator end it; whatever it does then, its outcome is cancelled and its result dropped.

        Raises:
            asyncio.CancelledError: the worker stops.
        """
        if handler.batch:
            return (await self.run_batch(handler, [payload], [context], "", timeout, child, stop))[0]
        if child is not None:
            handling = self._in_process(child, handler, payload, context)
            return await self._limited(handling, context, timeout, stop, self._storable)
        try:
            arguments = handler.arguments(payload, context)
        except BaseException as error:  # a validator may raise anything
            return _misfit(error), None
        return await self._called(handler, arguments, context, timeout, stop, self._storable)

    async def run_batch(
        self,
        handler: Handler,
        payloads: Sequence[dict[str, Any]],
        contexts: Sequence[Context],
        batch: str,
        timeout: float,
        child: Child | None = None,
        stop: Stop | None = None,
    ) -> list[tuple[Execution, Any]]:
        """One execution of a batch handler with several jobs: how each ended, in their order, and its result.

        A job whose payload does not fit fails by itself, and the handler is called with the others. What ends the call
        (an exception, the timeout, a crash, ``stop``) ends each of those.

        Args:
            handler: a batch handler.
            payloads, contexts: of the jobs, all of one app and type.
            batch: the batch's id, which the handler's context has; empty for a job that came alone.
            timeout, child, stop: as for `run`.

        Raises:
            asyncio.CancelledError: the worker stops.
        """
        if not payloads:
            return []
        if child is not None:
            context, check = batch_context(batch, contexts), partial(self._each_storable, len(payloads))
            handling = self._batch_in_process(child, payloads, context)
            return _each(len(payloads), *await self._limited(handling, context, timeout, stop, check))
        found = sort_out(handler, payloads, contexts)
        misfits = {place: (_misfit(error), None) for place, error in found.misfits.items()}
        if not found.values:
            return found.in_order((), misfits)
        context, check = batch_context(batch, found.contexts), partial(self._each_storable, len(found.values))
        arguments = handler.batch_arguments(found.values, context)
        ended = await self._called(handler, arguments, context, timeout, stop, check)
        return found.in_order(_each(len(found.values), *ended), misfits)

    def _each_storable(self, count: int, returned: Any) -> list[tuple[Execution, Any]]:
        """How each member ended for which a batch handler returned something."""
        return [self._entry(entry) for entry in entries(returned, count)]

    def _entry(self, entry: Any) -> tuple[Execution, Any]:
        try:
            if isinstance(entry, BaseException):
                return _ended(entry), None
            return Execution(Outcome.SUCCEEDED), self._storable(entry)
        except BaseException as error:
            return _ended(error), None

    def _called(
        self,
        handler: Handler,
        arguments: tuple[Any, ...],
        context: Context | BatchContext,
        timeout: float,
        stop: Stop | None,
        check: Callable[[Any], Any],
    ) -> Awaitable[tuple[Execution, Any]]:
        if handler.kind == "async":
            return self._in_task(handler, arguments, context, timeout, stop, check)
        return self._limited(self._in_thread(handler, arguments, context), context, timeout, stop, check)

    async def _limited(
        self,
        handling: Awaitable[Any],
        context: Context | BatchContext,
        timeout: float,
        stop: Stop | None,
        check: Callable[[Any], Any],
    ) -> tuple[Execution, Any]:
        stop = stop or Stop()
        ended = await self._outcome(handling, context, timeout, stop, check)
        if stop.tombstone is not None:
            return Execution(Outcome.CANCELLED, stop.tombstone.error), None
        return ended

    async def _outcome(
        self,
        handling: Awaitable[Any],
        context: Context | BatchContext,
        timeout: float,
        stop: Stop,
        check: Callable[[Any], Any],
    ) -> tuple[Execution, Any]:
        limit = asyncio.timeout(timeout)
        try:
            async with limit:
                result = await handling
            stop.close()
            return Execution(Outcome.SUCCEEDED), check(result)
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
        self,
        handler: Handler,
        arguments: tuple[Any, ...],
        context: Context | BatchContext,
        timeout: float,
        stop: Stop | None,
        check: Callable[[Any], Any],
    ) -> tuple[Execution, Any]:
        running = TaskCall(partial(handler.function, *arguments))
        try:
            return await self._limited(running.result(), context, timeout, stop, check)
        finally:
            if (left := await running.end()) is not None:
                self._left.add(left)
                _told_of("a task that was cancelled goes on; its result is dropped, and its place is free", context)

    async def _in_thread(self, handler: Handler, arguments: tuple[Any, ...], context: Context | BatchContext) -> Any:
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
        ended = _answered(await call(child, handler.type, payload, context))
        if isinstance(ended, BaseException):
            raise ended
        return ended

    async def _batch_in_process(
        self, child: Child, payloads: Sequence[dict[str, Any]], context: BatchContext
    ) -> list[Any]:
        answer = await call_batch(child, payloads, context)
        others = _answered(answer["others"]) if answer["others"] else None
        return [others if member is None else _answered(member) for member in answer["members"]]


def _answered(answer: dict[str, Any]) -> Any:
    """The result that a child answers, or the exception that says how else it ended."""
    match answer["outcome"]:
        case "result":
            return answer["result"]
        case "snooze":
            return Snooze(answer["seconds"])
        case "cancel":
            return Cancel(answer["reason"])
        case "unstorable":
            return ResultError(answer["message"])
    names, retryable = tuple(answer["names"]), answer["outcome"] != "invalid"
    return RemoteError(ErrorInfo.model_validate(answer["error"]), names, retryable)


def _each(count: int, execution: Execution, ended: Any) -> list[tuple[Execution, Any]]:
    """How each member ended: as the handler said, where it came so far."""
    found: list[tuple[Execution, Any]] = (
        ended if execution.outcome is Outcome.SUCCEEDED else [(execution, None)] * count
    )
    return found


def _told_of(what: str, context: Context | BatchContext) -> None:
    told = {"type": context.type, "app": context.app}
    if isinstance(context, BatchContext):
        _logger.warning(what, **told, batch=context.id, members=len(context.members))
    else:
        _logger.warning(what, **told, job=context.id, attempt=context.attempt)


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


def _misfit(error: BaseException) -> Execution:
    """A payload that could not be validated: it would not fit the next time either."""
    return _failed(error, retryable=not isinstance(error, ValidationError))


def _failed(error: BaseException, *, retryable: bool = True) -> Execution:
    return Execution(Outcome.FAILED, describe(error), error_names(error), retryable=retryable)


def _timed_out(timeout: float) -> Execution:
    error = ErrorInfo(type="TimeoutError", message=f"the attempt ran longer than its timeout of {timeout:g} s")
    return Execution(Outcome.TIMED_OUT, error, class_names(TimeoutError))
