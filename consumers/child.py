"""The child process in which handlers run that may be killed; see `dispatcher.edges.children`."""

from __future__ import annotations

import asyncio
import inspect
import json
from collections.abc import Callable
from dataclasses import asdict
from functools import partial
from typing import Any

from pydantic import ValidationError

from consumers.batches import entries, sort_out
from consumers.context import Context, batch_context
from consumers.control import Cancel, Snooze
from consumers.failures import describe
from consumers.loading import load_registry
from consumers.progress import Progress, Throttled
from consumers.registry import Handler, Registry
from consumers.results import ResultError, storable
from dispatcher.core.retry import error_names
from dispatcher.edges import log
from dispatcher.edges.children import note
from schemas import Trace


def answering(target: str, max_result_bytes: str, level: str, style: str) -> Callable[[bytes], bytes]:
    """What maps a request (JSON) to its answer (JSON), with the handlers of ``module:registry``.

    Its log goes where the worker's does, in the same ``level`` and ``style``. A result over the limit is refused here:
    it must not fill the worker's memory on its way.
    """
    log.configure(level, style)
    registry, limit = load_registry(target), int(max_result_bytes)
    return lambda request: json.dumps(run(registry, json.loads(request), limit)).encode()


def run(registry: Registry, request: dict[str, Any], max_result_bytes: int) -> dict[str, Any]:
    """Run one request's handler; the answer says how it ended. Its progress is told in notes.

    To a batch the answer has an entry for each of its ``members``; None for those that ended as ``others`` says.
    """
    progress = Throttled(_note)
    try:
        if "payloads" in request:
            return _run_batch(registry, request, max_result_bytes, progress)
        return _run(registry, request, max_result_bytes, progress)
    finally:
        progress.end()


def _note(execution: str, progress: Progress) -> None:
    note(json.dumps({"execution": execution, **asdict(progress)}).encode())


def _run(registry: Registry, request: dict[str, Any], max_result_bytes: int, progress: Throttled) -> dict[str, Any]:
    try:
        handler = _handler(registry, request["type"], batch=False)
        try:
            arguments = handler.arguments(request["payload"], _context(request["context"], progress))
        except ValidationError as error:
            return _error("invalid", error)
        return _result(_called(handler, arguments), max_result_bytes)
    except SystemExit:
        raise  # the handler ends its process
    except BaseException as error:
        return _ended(error)


def _run_batch(
    registry: Registry, request: dict[str, Any], max_result_bytes: int, progress: Throttled
) -> dict[str, Any]:
    contexts = [_context(fields, progress) for fields in request["contexts"]]
    try:
        handler = _handler(registry, request["type"], batch=True)
    except LookupError as error:
        return {"members": [None] * len(contexts), "others": _ended(error)}
    found = sort_out(handler, request["payloads"], contexts)
    members: list[dict[str, Any] | None] = [None] * len(found.values)
    others = None
    try:
        if found.values:
            arguments = handler.batch_arguments(found.values, batch_context(request["batch"], found.contexts))
            returned = entries(_called(handler, arguments), len(found.values))
            members = [_entry(entry, max_result_bytes) for entry in returned]
    except SystemExit:
        raise  # the handler ends its process
    except BaseException as error:
        others = _ended(error)
    return {"members": found.in_order(members, {n: _misfit(e) for n, e in found.misfits.items()}), "others": others}


def _handler(registry: Registry, job_type: str, batch: bool) -> Handler:
    handler = registry.get(job_type)
    if handler is None:
        raise LookupError(f"no handler for {job_type}")
    if handler.batch is not batch:  # the child read the module later
        raise LookupError(f"the handler of {job_type} was changed since the worker started: restart it")
    return handler


def _context(fields: dict[str, Any], progress: Throttled) -> Context:
    tags, trace = tuple(fields["tags"]), Trace.model_validate(fields["trace"]) if fields["trace"] else None
    tell = partial(progress.tell, fields["execution"])
    return Context(**{**fields, "tags": tags, "trace": trace}, _tell=tell)


def _called(handler: Handler, arguments: tuple[Any, ...]) -> Any:
    returned = handler.function(*arguments)
    return asyncio.run(_wait_for(returned)) if inspect.isawaitable(returned) else returned


def _result(result: Any, max_result_bytes: int) -> dict[str, Any]:
    return {"outcome": "result", "result": storable(result, max_result_bytes)}


def _entry(entry: Any, max_result_bytes: int) -> dict[str, Any]:
    """How one member of a batch ended."""
    try:
        return _ended(entry) if isinstance(entry, BaseException) else _result(entry, max_result_bytes)
    except BaseException as error:
        return _ended(error)


def _misfit(error: BaseException) -> dict[str, Any]:
    return _error("invalid" if isinstance(error, ValidationError) else "error", error)


def _ended(error: BaseException) -> dict[str, Any]:
    match error:
        case Snooze() | Cancel():
            return _steered(error)
        case ResultError():
            return {"outcome": "unstorable", "message": str(error)}
        case _:
            return _error("error", error)


def _steered(control: Snooze | Cancel) -> dict[str, Any]:
    """What the handler asked for; a failure where a subclass lacks what ours have."""
    try:
        if isinstance(control, Snooze):
            return {"outcome": "snooze", "seconds": Snooze(control.seconds).seconds}
        return {"outcome": "cancel", "reason": str(control.reason)}
    except Exception:
        return _error("error", control)


def _error(outcome: str, error: BaseException) -> dict[str, Any]:
    return {"outcome": outcome, "error": describe(error).model_dump(), "names": error_names(error)}


async def _wait_for(awaitable: Any) -> Any:
    return await awaitable
