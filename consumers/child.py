"""The child process of ``isolate="process"``, started by `consumers.processes`.

It runs one handler at a time. When the worker goes away, the socket ends and the process exits at once, whatever its
handler is doing.
"""

from __future__ import annotations

import asyncio
import inspect
import json
import os
import queue
import signal
import socket
import struct
import threading
from typing import Any

from consumers.context import Context
from consumers.control import Cancel, Snooze
from consumers.failures import describe
from consumers.loading import load_registry
from consumers.registry import Registry
from consumers.results import ResultError, storable
from dispatcher.core.retry import class_names
from schemas import Trace

_LENGTH = struct.Struct(">I")
#: The worker applies its own, smaller limit.
MAX_RESULT_BYTES = 64 << 20


def main(target: str, fd: int) -> None:
    """Serve requests until the worker goes away."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    registry = load_registry(target)
    connection = socket.socket(fileno=fd)
    requests: queue.SimpleQueue[dict[str, Any]] = queue.SimpleQueue()
    threading.Thread(target=_read, args=(connection, requests), daemon=True).start()
    while True:
        answer = json.dumps(run(registry, requests.get())).encode()
        connection.sendall(_LENGTH.pack(len(answer)) + answer)


def _read(connection: socket.socket, requests: queue.SimpleQueue[dict[str, Any]]) -> None:
    with connection.makefile("rb") as stream:
        while len(head := stream.read(_LENGTH.size)) == _LENGTH.size:
            requests.put(json.loads(stream.read(*_LENGTH.unpack(head))))
    os._exit(0)


def run(registry: Registry, request: dict[str, Any]) -> dict[str, Any]:
    """Run one request's handler; the answer says how it ended."""
    fields = dict(request["context"])
    fields["tags"] = tuple(fields["tags"])
    fields["trace"] = Trace.model_validate(fields["trace"]) if fields["trace"] else None
    try:
        handler = registry.get(request["type"])
        if handler is None:
            raise LookupError(f"no handler for {request['type']}")
        result = handler.function(*handler.arguments(request["payload"], Context(**fields)))
        if inspect.isawaitable(result):
            result = asyncio.run(_wait_for(result))
        return {"outcome": "result", "result": storable(result, MAX_RESULT_BYTES)}
    except Snooze as snooze:
        return {"outcome": "snooze", "seconds": snooze.seconds}
    except Cancel as cancel:
        return {"outcome": "cancel", "reason": cancel.reason}
    except ResultError as error:
        return {"outcome": "unstorable", "message": str(error)}
    except Exception as error:
        return {"outcome": "error", "error": describe(error).model_dump(), "names": class_names(type(error))}


async def _wait_for(awaitable: Any) -> Any:
    return await awaitable
