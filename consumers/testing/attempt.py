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

    A batch handler is given a list of one; `run_batch` gives it more.

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
    handler = _handler(registry, job_type)
    fields = {"id": id, "app": app, "type": job_type, "run": run, "attempt": attempt, "tags": tuple(tags)}
    (made,) = _made(handler, [_Member(payload, cancelled, fields)], "", timeout, settings)
    return made


def run_batch(
    registry: Registry,
    job_type: str,
    payloads: Iterable[Any],
    *,
    batch: str = "batch-1",
    app: str = "test",
    run: int = 1,
    attempt: int = 1,
    tags: Iterable[str] = (),
    timeout: float | None = None,
    cancelled: bool = False,
    settings: Settings | None = None,
) -> list[Attempt]:
    """Make one attempt of a batch handler at several jobs: how it ended for each, in their order.

    Lines of the batch's log are among those of every job, a line of one member's log is that job's alone.

    Args:
        registry, job_type: the batch handler.
        payloads: of the jobs ``job-1``, ``job-2``, …, each as `run` takes it.
        batch: the id of the batch.
        app, run, attempt, tags: what the contexts of the members say.
        timeout, cancelled, settings: as for `run`.

    Raises:
        LookupError: the registry has no such handler.
        TypeError: the handler takes one payload.
    """
    handler = _handler(registry, job_type)
    if not handler.batch:
        raise TypeError(f'the handler of "{job_type}" takes one payload: use run, or annotate a list of them')
    fields = {"app": app, "type": job_type, "run": run, "attempt": attempt, "tags": tuple(tags)}
    members = [_Member(payload, cancelled, fields | {"id": f"job-{n}"}) for n, payload in enumerate(payloads, 1)]
    return _made(handler, members, batch, timeout, settings)


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


class _Member:
    """One job, and what is heard of it."""

    def __init__(self, payload: Any, cancelled: bool, fields: dict[str, Any]) -> None:
        self.payload = {} if payload is None else json.loads(pydantic_core.to_json(payload))
        self.progress: list[Progress] = []
        self.logs: list[LogLine] = []
        self.context = Context(**fields, execution=clock.new_id(), _tell=self.progress.append)
        if cancelled:
            self.context.cancel()

    def attempt(self, execution: Execution, result: Any, rules: TypeRules, seconds: float) -> Attempt:
        """How it ended."""
        return Attempt(
            outcome=str(execution.outcome),
            result=rules.result(result),
            error=recorded(execution, rules),
            error_names=execution.names,
            retryable=execution.retryable,
            snooze=execution.snooze if execution.outcome == "snoozed" else None,
            progress=tuple(self.progress),
            logs=tuple(self.logs),
            seconds=seconds,
        )


def _made(
    handler: Handler, members: list[_Member], batch: str, timeout: float | None, settings: Settings | None
) -> list[Attempt]:
    """An attempt at these jobs; several only of a batch handler."""
    settings = settings or load_settings({})
    worker, rules = settings.worker, TypeTable(settings.type_entries).of(handler.type)
    limit = timeout or handler.timeout or rules.timeout or worker.timeout

    def hear(line: LogLine) -> None:
        job = line.fields.get("job")
        for member in [member for member in members if member.context.id == job] or members:
            member.logs.append(line)

    with heard(hear):
        found, seconds = beside_a_loop(
            lambda: _executed(in_this_process(handler), members, batch, limit, worker.max_result_bytes)
        )
    return [member.attempt(*ended, rules=rules, seconds=seconds) for member, ended in zip(members, found, strict=True)]


def _executed(
    handler: Handler, members: list[_Member], batch: str, timeout: float, max_bytes: int
) -> tuple[list[tuple[Execution, Any]], float]:
    """How each ended, with its result; and how long that took, in virtual time."""

    async def execute() -> list[tuple[Execution, Any]]:
        executor = Executor(1, "", max_bytes)
        try:
            if handler.batch:
                payloads, contexts = [member.payload for member in members], [member.context for member in members]
                return await executor.run_batch(handler, payloads, contexts, batch, timeout)
            return [await executor.run(handler, member.payload, member.context, timeout) for member in members]
        finally:
            await executor.close()

    loop = VirtualLoop()
    try:
        return loop.run_until_complete(execute()), loop.time()
    finally:
        loop.close()
