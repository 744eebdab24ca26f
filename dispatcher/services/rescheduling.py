"""``jobs reschedule``: another time for a job that waits in MongoDB.

The job is moved first, then history is told. A ``kill -9`` in between leaves history with the old time; the job starts
at the new one, and doing it again puts both right.
"""

from __future__ import annotations

from dispatcher.core.history import Document
from dispatcher.core.lifecycle import FINAL
from dispatcher.edges import clock
from dispatcher.services.operations import OperationError, Operations
from schemas import JobState, Moved
from schemas.events import about
from schemas.job import MAX_DELAY_SECONDS


async def reschedule(operations: Operations, doc: Document, due_at: int) -> int:
    """Move a job to another time; returns when it is due, where the past means now.

    Args:
        operations: with a connected publisher.
        doc: the job, as history has it.
        due_at: milliseconds since the epoch.

    Raises:
        OperationError: it does not wait for its time where it could be moved, or not to that time.
    """
    if JobState(doc["state"]) in FINAL:
        raise OperationError(f"job {doc['id']} is {doc['state']}: only a job that waits for its time can be moved")
    now = clock.now_ms()
    if due_at > now + MAX_DELAY_SECONDS * 1000:
        raise OperationError("a job waits at most a year (31,536,000 s): give an earlier time")
    work = await operations.scheduled.get(doc["app"], doc["id"])
    if work is None:
        raise _too_late(doc)
    due_at = max(due_at, now)
    if work.expires_at is not None and due_at >= work.expires_at:
        raise OperationError(f"job {doc['id']} expires before that time: give an earlier one")
    moved = work.model_copy(update={"seq": work.seq + 1, "due_at": due_at})
    if not await operations.scheduled.replace(work, moved):
        raise _too_late(doc)
    # the event is about the step before, as of every job that is put off
    event = Moved(**about(work), at=now, state=JobState.SCHEDULED, due_at=due_at, by_hand=True)
    await operations.tell(event)
    return due_at


def _too_late(doc: Document) -> OperationError:
    return OperationError(
        f"job {doc['id']} ({doc['state']}) cannot be moved: it is not among those that wait in MongoDB. "
        "A delay of a minute or less waits in the broker, and so do the last 20 s of a longer one; "
        "dispatcher jobs cancel stops it there"
    )
