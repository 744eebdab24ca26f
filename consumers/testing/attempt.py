"""One attempt at one job, in virtual time."""

from __future__ import annotations

import difflib
import inspect
import json
from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import Any

import pydantic_core

from config import Settings, load_settings
from consumers.context import Context
from consumers.executor import Executor
from consumers.failures import recorded
from consumers.progress import Progress
from consumers.registry import Handler, Registry
from consumers.testing.logs import LogLine, heard
from consumers.testing.virtual import VirtualLoop, beside_a_loop
from dispatcher.core.outcome import Execution
from dispatcher.core.types import TypeRules, TypeTable
from dispatcher.edges import clock
from schemas import ErrorInfo


@dataclass(frozen=True, slots=True)
class Attempt:
    """How one attempt ended.

    Attributes:
        outcome: ``succeeded``, ``failed``, ``timed_out``, ``cancelled`` or ``snoozed``.
        result: what history would keep of what the handler returned.
        error: ``type``, ``message`` and ``traceback`` as history would keep them, where it did not succeed.
        error_names: the exception's class names along its bases, which ``on`` and ``never`` are held against.
        retryable: False where no retry could help: a payload or a result that does not fit.
        snooze: seconds, where the handler raised `Snooze`.
        progress: every report of ``ctx.progress``, with ``done``, ``total`` and ``message``.
        logs: the lines of ``ctx.log``, at every level.
        seconds: how long it took, in virtual time.
    """

    outcome: str
    result: Any
    error: ErrorInfo | None
    error_names: tuple[str, ...]
    retryable: bool
    snooze: float | None
    progress: tuple[Progress, ...]
    logs: tuple[LogLine, ...]
    seconds: float


def run(
    registry: Registry,
    job_type: str,
    payload: Any = None,
    *,
    id: str = "job-1",
    app: str = "test",
    run: int = 1,
    attempt: int = 1,
    tags: Iterable[str] = (),
    timeout: float | None = None,
    cancelled: bool = False,
    settings: Settings | None = None,
) -> Attempt:
    """Make one attempt: payload validated, handler run under its timeout, result checked, as the worker does.

    A sync handler runs in a thread, for which time stands still: it cannot time out here. One with
    ``isolate="process"`` runs in this process, as if it were declared without.

    Args:
        registry, job_type: the handler.
        payload: a dict, or anything pydantic writes as a JSON object.
        id, app, run, attempt, tags: what the handler's context says.
        timeout: the message's; the handler's counts where it is None.
        cancelled: whether ``ctx.cancelled`` is true from the beginning.
        settings: for the default timeout and the limit of results; the defaults where it is None.

    Raises:
        LookupError: the registry has no such handler.
    """
    handler = in_this_process(_handler(registry, job_type))
    settings = settings or load_settings({})
    worker, rules = settings.worker, TypeTable(settings.type_entries).of(job_type)
    reports: list[Progress] = []
    context = Context(
        id=id,
        app=app,
        type=job_type,
        run=run,
        attempt=attempt,
        execution=clock.new_id(),
        tags=tuple(tags),
        _tell=reports.append,
    )
    if cancelled:
        context.cancel()
    body = {} if payload is None else json.loads(pydantic_core.to_json(payload))
    limit = timeout or handler.timeout or rules.timeout or worker.timeout
    made = beside_a_loop(lambda: _attempt(handler, body, context, limit, worker.max_result_bytes, rules))
    return replace(made, progress=tuple(reports))


def in_this_process(handler: Handler) -> Handler:
    """The handler, as if it were not isolated."""
    if handler.kind != "process":
        return handler
    return replace(handler, kind="async" if inspect.iscoroutinefunction(handler.function) else "thread")


def _handler(registry: Registry, job_type: str) -> Handler:
    if handler := registry.get(job_type):
        return handler
    near = difflib.get_close_matches(job_type, [handler.type for handler in registry], n=1, cutoff=0.0)
    hint = f'; did you mean "{near[0]}"?' if near else ""
    raise LookupError(f'no handler for "{job_type}" in this registry{hint}')


def _attempt(
    handler: Handler, payload: dict[str, Any], context: Context, timeout: float, max_bytes: int, rules: TypeRules
) -> Attempt:
    lines: list[LogLine] = []

    async def attempt() -> tuple[Execution, Any]:
        executor = Executor(1, "", max_bytes)
        try:
            return await executor.run(handler, payload, context, timeout)
        finally:
            await executor.close()

    loop = VirtualLoop()
    try:
        with heard(lines.append):
            execution, result = loop.run_until_complete(attempt())
        return Attempt(
            outcome=str(execution.outcome),
            result=rules.result(result),
            error=recorded(execution, rules),
            error_names=execution.names,
            retryable=execution.retryable,
            snooze=execution.snooze if execution.outcome == "snoozed" else None,
            progress=(),
            logs=tuple(lines),
            seconds=loop.time(),
        )
    finally:
        loop.close()
