"""What a service set aside because it could not read it goes back to where it lay, once a version runs that reads it.

Where services were upgraded in another order than docs/upgrade.md says, an old worker has parked what a new intake
wrote, and an old recorder has put what a new service told into ``unrecorded.v1``: whole, and not lost.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from pydantic import ValidationError

from dispatcher.core.grouping import partition_of
from dispatcher.core.timing import route
from dispatcher.core.topology import Names, work_key
from dispatcher.edges import clock
from dispatcher.edges.amqp import Outgoing, Rotated, marked_again, rotate
from dispatcher.services.operations import OperationError, Operations
from schemas import EventBatch, is_batch, read_steps

Goes = Callable[[bytes], Outgoing | None]


async def readmit_unrecorded(operations: Operations) -> Rotated:
    """Put every message of ``unrecorded.v1`` that this version reads back into ``history.v1``.

    What MongoDB refused is readable too: it comes back there if MongoDB refuses it again.

    Raises:
        BrokerError: the broker was lost; what was not moved is where it was.
        OperationError: a queue is missing.
    """
    return await _readmit(operations, operations.names.unrecorded, lambda body: event_message(operations.names, body))


async def readmit_parked(operations: Operations) -> Rotated:
    """Put every parked message that was no job's to whoever parked it, and is to this version, back into its queue.

    Raises:
        BrokerError: the broker was lost; what was not moved is where it was.
        OperationError: a queue is missing.
    """
    whole = Rotated()
    for lane in operations.lanes:
        queue = operations.names.parked(lane)
        done = await _readmit(operations, queue, lambda body: work_message(operations.names, body, clock.now_ms()))
        whole.looked_at += done.looked_at
        whole.replaced += done.replaced
    return whole


def event_message(names: Names, body: bytes) -> Outgoing | None:
    """Where a message with events belongs; None for what is none."""
    try:
        EventBatch.decode(body)
    except ValidationError:
        return None
    return Outgoing("", names.history, body)


def work_message(names: Names, body: bytes, now: int) -> Outgoing | None:
    """Where a message that is no dead job's belongs; None for a dead job's, and for what is no work message.

    It is marked as one that may be there already: a rotation that is cut off leaves some twice.
    """
    try:
        steps = read_steps(body)
    except ValidationError:
        return None
    if any(step.error is not None for step in steps):
        return None
    first = steps[0]
    if is_batch(body):
        return marked_again(Outgoing(names.work, work_key(first.lane, first.priority), body))
    to = route(names, first.lane, first.priority, first.due_at, now, partition_of(first))
    return marked_again(Outgoing(to.exchange, to.routing_key, body, first.headers))


async def _readmit(operations: Operations, queue: str, goes: Goes) -> Rotated:
    done = await rotate(operations.url, queue, operations.publisher, _Readmitting(goes))
    if done.unroutable:
        raise OperationError("a queue is missing: run `dispatcher topology apply`; what has none stays")
    return done


class _Readmitting:
    """The plan of a rotation: what can be read goes back, the rest stays."""

    def __init__(self, goes: Goes) -> None:
        self._goes = goes

    async def choose(self, bodies: Sequence[bytes]) -> Sequence[Outgoing | bool]:
        """See `rotate`."""
        return [self._goes(body) or True for body in bodies]

    def follow(self, replaced: Sequence[int]) -> Sequence[Outgoing]:
        """Nothing: history hears of the steps when they run."""
        return []

    def enough(self) -> bool:
        """Never."""
        return False
