"""The work message: what intake hands to a worker, and a worker to the delay ladder and to ``parked``.

A job's own state travels here, in the body, and never in broker headers such as ``x-death``.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Annotated, Any, Literal

from pydantic import Field

from schemas.job import MAX_GROUP_SIZE, Count, ErrorInfo, GroupSpec, Millis, Model, Priority, RetrySpec, Trace


class WorkMessage(Model):
    """One step of one job.

    ``run`` counts from 1 and grows with each manual retry or replay. ``n`` is the attempt within the run, from 1.
    ``seq`` counts the steps of the run, from 1: it grows with every retry, snooze and deferral, so that two
    messages of one job can always be told in order. ``accepted_at`` and ``due_at`` are milliseconds since the
    epoch; ``due_at`` is the time before which this step must not start, ``expires_at`` the one from which on it must
    not start any more, ``deadline_at`` the one by which the job should have finished.
    ``suspect`` says that an earlier attempt of the run killed its process. ``group`` is there until the job's batch is
    complete: what has it waits for the others of its group.
    """

    v: Literal[1] = 1
    app: str
    id: str
    run: Count = 1
    n: Count = 1
    seq: Count = 1
    type: str
    lane: str
    priority: Priority
    accepted_at: Millis
    payload: dict[str, Any]
    tags: tuple[str, ...] = ()
    timeout: float | None = None
    retry: RetrySpec | None = None
    due_at: Millis | None = None
    expires_at: Millis | None = None
    deadline_at: Millis | None = None
    unhandled_since: Millis | None = None
    suspect: bool = False
    group: GroupSpec | None = None
    trace: Trace | None = None
    error: ErrorInfo | None = None

    def encode(self) -> bytes:
        """The message's body: UTF-8 JSON, with fields at their default left out."""
        return self.model_dump_json(exclude_defaults=True).encode()

    @classmethod
    def decode(cls, body: bytes) -> WorkMessage:
        """Read a body back.

        Raises:
            pydantic.ValidationError: the body is not a work message of this version.
        """
        return cls.model_validate_json(body)

    @property
    def headers(self) -> dict[str, str] | None:
        """The headers of a message that carries it: the client's trace context, if there is one."""
        return self.trace.model_dump(exclude_none=True) if self.trace else None

    @property
    def key(self) -> tuple[str, str]:
        """The job's identity: one app, one id, one job."""
        return self.app, self.id


#: How the body of a batch begins, and that of no other message of ours.
_BATCH = b'{"v":1,"batch":"'


class BatchMessage(Model):
    """Several jobs for one call of their handler: steps of one app, type, lane and priority, in their order.

    ``batch`` is its id. Each member is a step by itself from here on: it is told of, retried and parked alone.
    """

    v: Literal[1] = 1
    batch: Annotated[str, Field(min_length=1, max_length=64)]
    members: Annotated[tuple[WorkMessage, ...], Field(min_length=1, max_length=MAX_GROUP_SIZE)]

    def encode(self) -> bytes:
        """The message's body."""
        return join_batch(self.batch, (member.encode() for member in self.members))

    @classmethod
    def decode(cls, body: bytes) -> BatchMessage:
        """Read a body back.

        Raises:
            pydantic.ValidationError: the body is not a batch of this version.
        """
        return cls.model_validate_json(body)


def join_batch(batch: str, members: Iterable[bytes]) -> bytes:
    """The body of a batch of these encoded work messages."""
    return _BATCH + batch.encode() + b'","members":[' + b",".join(members) + b"]}"


def is_batch(body: bytes) -> bool:
    """Whether a message of a work queue is a batch."""
    return body.startswith(_BATCH)


def read_steps(body: bytes) -> tuple[WorkMessage, ...]:
    """What a message of a work queue holds: one step, or those of a batch.

    Raises:
        pydantic.ValidationError: the body is neither.
    """
    return BatchMessage.decode(body).members if is_batch(body) else (WorkMessage.decode(body),)
