"""Child processes for handlers: each runs one job at a time and is killed when that runs out of time.

Children that finished their job are kept for the next, so that a job need not wait for an interpreter to start.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator, Sequence
from typing import Any

from consumers.context import BatchContext, Context
from dispatcher.edges.children import Child, ChildDied

#: Idle children kept for the next jobs.
MAX_IDLE = 4


#: Level and format of the log.
Logging = tuple[str, str]


class ChildCrashed(Exception):
    """The child process died while it ran the handler."""


class ProcessPool:
    """Children of one worker, all with the same registry."""

    def __init__(self, target: str, max_result_bytes: int, logging: Logging) -> None:
        self._arguments = (target, str(max_result_bytes), *logging)
        self._idle: list[Child] = []

    @contextlib.asynccontextmanager
    async def child(self) -> AsyncIterator[Child]:
        """A child of one's own, ready for a job; it is killed if it did not answer.

        Raises:
            ChildNotStarted: none can be started.
        """
        child = await self._take()
        try:
            yield child
        finally:
            if child.idle and len(self._idle) < MAX_IDLE:
                self._idle.append(child)
            else:
                await asyncio.shield(child.kill())

    async def _take(self) -> Child:
        while self._idle:
            child, fine = self._idle.pop(), False
            try:
                fine = await child.answers()
            finally:
                if not fine:  # it died between two jobs, which is the fault of none
                    await asyncio.shield(child.kill())
            if fine:
                return child
        return await Child.start("consumers.child", *self._arguments)

    async def close(self) -> None:
        """Kill the idle children; busy ones are killed when their calls are cancelled."""
        idle, self._idle = self._idle, []
        for child in idle:
            await child.kill()


async def call(child: Child, job_type: str, payload: dict[str, Any], context: Context) -> Any:
    """Run a handler in a child; the answer is that of `consumers.child.run`.

    Raises:
        ChildCrashed: the child died.
    """
    return await _ask(child, {"type": job_type, "payload": payload, "context": _fields(context)}, (context,))


async def call_batch(child: Child, payloads: Sequence[dict[str, Any]], context: BatchContext) -> Any:
    """Run a batch handler in a child; the answer is that of `consumers.child.run` to a batch.

    Raises:
        ChildCrashed: the child died.
    """
    contexts = [_fields(member) for member in context.members]
    request = {"type": context.type, "batch": context.id, "payloads": payloads, "contexts": contexts}
    return await _ask(child, request, context.members)


def _fields(context: Context) -> dict[str, Any]:
    return {
        "id": context.id,
        "app": context.app,
        "type": context.type,
        "run": context.run,
        "attempt": context.attempt,
        "execution": context.execution,
        "tags": context.tags,
        "trace": context.trace.model_dump() if context.trace else None,
    }


async def _ask(child: Child, request: dict[str, Any], contexts: Sequence[Context]) -> Any:
    told_of = {context.execution: context for context in contexts}

    def told(note: bytes) -> None:
        said = json.loads(note)
        if context := told_of.get(said.pop("execution")):
            context.progress(**said)

    try:
        return json.loads(await child.call(json.dumps(request).encode(), told))
    except ChildDied as death:
        raise ChildCrashed(f"the handler's process {death}") from None
