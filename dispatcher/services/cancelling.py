"""``jobs cancel``: a tombstone first, then the job's end in history.

What a ``kill -9`` does to the command: before the tombstone is written, nothing has happened; after it, the job does
not start any more, and whoever meets its step ends it. So a step that waits in MongoDB is taken out of there only when
history is told: nobody would meet it any more. Calling it again is safe.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable

from dispatcher.core import keys
from dispatcher.core.cancelling import FRESH, NO_REASON, Tombstone
from dispatcher.core.history import Document
from dispatcher.core.lifecycle import FINAL
from dispatcher.edges import clock
from dispatcher.services.operations import OperationError, Operations
from schemas import JobState, Moved

#: Seconds after which every worker must have seen a tombstone, or starts nothing before it has.
SEEN = FRESH + 0.1
#: Seconds between two looks at history, and between two words about a job that still runs.
LOOK, TELL = 0.1, 2.0


async def cancel(
    operations: Operations, doc: Document, reason: str | None, patience: float, tell: Callable[[str], None]
) -> Document:
    """Cancel a job's run; returns its document once it shows the end.

    Args:
        operations: with a connected publisher.
        doc: the job, as history has it.
        reason: kept in history.
        patience: seconds to wait for the end.
        tell: called with what the command waits for.

    Raises:
        OperationError: it has ended, or does not end in time (it is cancelled all the same).
    """
    if JobState(doc["state"]) in FINAL:
        raise OperationError(f"job {doc['id']} is {doc['state']}: only a job that has not ended can be cancelled")
    text = keys.redact((reason or NO_REASON).encode()).decode()
    tombstone = Tombstone(doc["_id"], doc["run"], text)
    await operations.cancels.put(tombstone, clock.now_ms())
    await asyncio.sleep(SEEN)
    ended = await _end(operations, doc, tombstone, time.monotonic() + patience, tell)
    if ended["run"] == doc["run"] and ended["state"] != JobState.CANCELLED:
        raise OperationError(f"job {doc['id']} ended {ended['state']} before it could be cancelled")
    return ended


async def _end(
    operations: Operations, doc: Document, tombstone: Tombstone, deadline: float, tell: Callable[[str], None]
) -> Document:
    told, published = time.monotonic(), False
    while True:
        doc = await operations.find(doc["id"], doc["app"])
        state = JobState(doc["state"])
        if state in FINAL or doc["run"] > tombstone.run:
            return doc
        if state is not JobState.RUNNING and not published:
            await operations.tell(_event(doc, tombstone))
            await operations.cancels.unschedule(tombstone)
            published = True
        now = time.monotonic()
        if now > deadline:
            raise OperationError(
                f"job {doc['id']} is cancelled and starts no more, but history still shows it as {state}: "
                "see whether a worker and the recorder run"
            )
        if now > told + TELL:
            told = now
            tell(f"waiting until history shows the end of job {doc['id']} ({state})")
        await asyncio.sleep(LOOK)


def _event(doc: Document, tombstone: Tombstone) -> Moved:
    """The end of a run whose step waits: nobody else need be alive for history to show it."""
    shared = {name: doc[name] for name in ("app", "id", "run", "type", "lane", "priority", "accepted_at")}
    return Moved(**shared, seq=max(doc["seq"], 1), at=clock.now_ms(), state=JobState.CANCELLED, error=tombstone.error)
