"""Events: what happened to a job, published in batches to ``history.v1`` and merged by the recorder.

Each event alone says which job it is about and where it stood (``run``, ``seq``), so that any order of arrival,
and any number of copies, gives the same document.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Annotated, Any, Literal

from pydantic import Field

from schemas.job import Count, ErrorInfo, GroupSpec, JobState, Millis, Model, Outcome, RetrySpec, Trace, UniqueKey
from schemas.work import WorkMessage

#: A batch message is closed at this many events or bytes, whichever comes first.
MAX_BATCH_EVENTS = 500
MAX_BATCH_BYTES = 1_048_576


class JobEvent(Model):
    """What every event says of its job."""

    app: str
    id: str
    run: Count = 1
    seq: Count = 1
    type: str
    lane: str
    priority: str
    accepted_at: Millis


class Accepted(JobEvent):
    """Intake took the job in; the only event that carries its content.

    ``payload`` is None where the configuration of its type does not record it; ``redacted`` says that fields of it
    were taken out. ``due_at`` is the time for which the client asked.
    """

    kind: Literal["accepted"] = "accepted"
    key_id: str
    payload: dict[str, Any] | None = None
    redacted: bool = False
    tags: tuple[str, ...] = ()
    timeout: float | None = None
    retry: RetrySpec | None = None
    due_at: Millis | None = None
    expires_at: Millis | None = None
    deadline_at: Millis | None = None
    group: GroupSpec | None = None
    unique: UniqueKey | None = None
    trace: Trace | None = None


class Started(JobEvent):
    """A worker began an execution; ``batch`` is the id of the batch that it is part of."""

    kind: Literal["started"] = "started"
    n: Count
    execution: str
    started_at: Millis
    worker: str
    batch: str | None = None


class Ended(JobEvent):
    """An execution ended. ``state`` is where the job went; ``due_at`` when it comes back, if it does."""

    kind: Literal["ended"] = "ended"
    n: Count
    execution: str
    started_at: Millis
    finished_at: Millis
    worker: str
    outcome: Outcome
    state: JobState
    due_at: Millis | None = None
    error: ErrorInfo | None = None
    result: Any = None
    batch: str | None = None


class Moved(JobEvent):
    """The job changed state without an execution: put off for want of a handler or by hand, or ended.

    ``duplicate_of``: the id of the job that has its unique key. ``batch``: the id of the batch in which it leaves its
    group.
    """

    kind: Literal["moved"] = "moved"
    at: Millis
    state: JobState
    due_at: Millis | None = None
    error: ErrorInfo | None = None
    by_hand: bool = False
    duplicate_of: str | None = None
    batch: str | None = None


class Progressed(JobEvent):
    """A running handler said how far it has come."""

    kind: Literal["progressed"] = "progressed"
    n: Count
    execution: str
    at: Millis
    done: int | float
    total: int | float | None = None
    message: str | None = None


class Rerun(JobEvent):
    """Somebody started a new run by hand (``jobs retry``, ``dead replay``)."""

    kind: Literal["rerun"] = "rerun"
    at: Millis
    by: Literal["retry", "replay"]


class Resent(JobEvent):
    """Another message with the job's id arrived, which makes no job; ``mark`` is unique to it."""

    kind: Literal["resent"] = "resent"
    at: Millis
    mark: str


class Refused(Model):
    """Intake refused a message whose key was valid. It stands as a document of its own under ``id``."""

    kind: Literal["refused"] = "refused"
    app: str
    id: str
    key_id: str
    type: str
    at: Millis
    code: str
    message: str


Event = Annotated[
    Accepted | Started | Progressed | Ended | Moved | Rerun | Resent | Refused, Field(discriminator="kind")
]


def told_at(event: Event) -> int:
    """When that happened of which an event tells."""
    if isinstance(event, Accepted):
        return event.accepted_at
    if isinstance(event, Started):
        return event.started_at
    return event.finished_at if isinstance(event, Ended) else event.at


class EventBatch(Model):
    """The body of one message in ``history.v1``."""

    v: Literal[1] = 1
    events: tuple[Event, ...]

    @classmethod
    def decode(cls, body: bytes) -> EventBatch:
        """Read a body back.

        Raises:
            pydantic.ValidationError: the body is not a batch of this version.
        """
        return cls.model_validate_json(body)


#: A batch of no events, to which the recorder answers, where it has a ``reply_to``, once history has all before it.
MARK = EventBatch(events=()).model_dump_json().encode()


def encode_event(event: Event) -> bytes:
    """One event as JSON, with fields at their default left out, but for its kind."""
    body = event.model_dump_json(exclude_defaults=True).encode()
    return b'{"kind":"' + event.kind.encode() + b'",' + body[1:]


def encode_batches(events: Iterable[Event]) -> Iterator[bytes]:
    """Batch bodies of these events, in their order."""
    return pack(map(encode_event, events))


def pack(encoded: Iterable[bytes]) -> Iterator[bytes]:
    """Encoded events in as few batch bodies as their number and size allow, in their order."""
    parts: list[bytes] = []
    size = 0
    for part in encoded:
        if parts and (len(parts) >= MAX_BATCH_EVENTS or size + len(part) > MAX_BATCH_BYTES):
            yield _join(parts)
            parts, size = [], 0
        parts.append(part)
        size += len(part)
    if parts:
        yield _join(parts)


def _join(parts: list[bytes]) -> bytes:
    return b'{"v":1,"events":[' + b",".join(parts) + b"]}"


def about(work: WorkMessage) -> dict[str, Any]:
    """The fields that every event about this work message shares."""
    return {
        "app": work.app,
        "id": work.id,
        "run": work.run,
        "seq": work.seq,
        "type": work.type,
        "lane": work.lane,
        "priority": work.priority,
        "accepted_at": work.accepted_at,
    }
