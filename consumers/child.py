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

from consumers.context import Context
from consumers.control import Cancel, Snooze
from consumers.failures import describe
from consumers.loading import load_registry
from consumers.progress import Progress, Throttled
from consumers.registry import Registry
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
    """Run one request's handler; the answer says how it ended. Its progress is told in notes."""
    progress = Throttled(partial(_note, request["context"]["execution"]))
    try:
        return _run(registry, request, max_result_bytes, progress)
    finally:
        progress.end()


def _note(execution: str, progress: Progress) -> None:
    note(json.dumps({"execution": execution, **asdict(progress)}).encode())


def _run(registry: Registry, request: dict[str, Any], max_result_bytes: int, progress: Throttled) -> dict[str, Any]:
    fields = dict(request["context"])
    fields["tags"] = tuple(fields["tags"])
    fields["trace"] = Trace.model_validate(fields["trace"]) if fields["trace"] else None
    try:
        handler = registry.get(request["type"])
        if handler is None:
            raise LookupError(f"no handler for {request['type']}")
        try:
            arguments = handler.arguments(request["payload"], Context(**fields, _tell=progress.tell))
        except ValidationError as error:
            return _error("invalid", error)
        result = handler.function(*arguments)
        if inspect.isawaitable(result):
            result = asyncio.run(_wait_for(result))
        return {"outcome": "result", "result": storable(result, max_result_bytes)}
    except (Snooze, Cancel) as control:
        return _steered(control)
    except ResultError as error:
        return {"outcome": "unstorable", "message": str(error)}
    except SystemExit:
        raise  # the handler ends its process
    except BaseException as error:
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
