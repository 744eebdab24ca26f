"""The client's message (contract v1) and the words that every other format shares."""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field

#: Milliseconds since the Unix epoch, UTC, up to the year 9999. BSON dates have the same resolution, so nothing is lost
#: on the way.
MAX_MILLIS = 253_402_300_799_999
Millis = Annotated[int, Field(ge=0, le=MAX_MILLIS)]

#: A run, a step of it or an attempt, counted from 1.
Count = Annotated[int, Field(ge=1, le=2**31 - 1)]

MAX_ID_LENGTH = 128
#: The longest delay that a client may ask for, in seconds: a year.
MAX_DELAY_SECONDS = 31_536_000

Priority = Literal["critical", "high", "normal", "low", "background"]

#: From the first to be started to the last.
PRIORITIES: tuple[Priority, ...] = ("critical", "high", "normal", "low", "background")


class JobState(StrEnum):
    """Every state of a job. Who moves a job out of each stands in ``dispatcher.core.lifecycle``."""

    SCHEDULED = "scheduled"
    WAITING = "waiting"
    BUFFERED = "buffered"
    QUEUED = "queued"
    RUNNING = "running"
    RETRYING = "retrying"
    SUCCEEDED = "succeeded"
    FAILED = "failed"
    TIMED_OUT = "timed_out"
    CANCELLED = "cancelled"
    EXPIRED = "expired"
    REJECTED = "rejected"
    DUPLICATE = "duplicate"


class Outcome(StrEnum):
    """How one execution ended."""

    SUCCEEDED = "succeeded"
    FAILED = "failed"
    TIMED_OUT = "timed_out"
    CANCELLED = "cancelled"
    SNOOZED = "snoozed"
    CRASHED = "crashed"


class Model(BaseModel):
    """Base of every format of ours: unknown fields are refused, so a newer format is noticed, not guessed."""

    model_config = ConfigDict(extra="forbid", frozen=True)


ClassName = Annotated[str, Field(pattern=r"^[A-Za-z_][A-Za-z0-9_.]{0,199}$")]
ClassNames = Annotated[tuple[ClassName, ...], Field(max_length=100, strict=False)]
Tag = Annotated[str, Field(min_length=1, max_length=64)]


class RetrySpec(Model):
    """The retry fields that somebody set; a field left out falls to the next source (handler, then default).

    ``base`` and ``max_delay`` are seconds; ``jitter`` is the fraction of a delay that chance may take away;
    ``on`` and ``never`` are exception class names, matched along the class's bases.
    """

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)

    max_attempts: Annotated[int, Field(ge=1, le=100)] | None = None
    base: Annotated[float, Field(ge=0.125, le=86_400)] | None = None
    factor: Annotated[float, Field(ge=1, le=10)] | None = None
    max_delay: Annotated[float, Field(ge=0.125, le=86_400)] | None = None
    jitter: Annotated[float, Field(ge=0, le=1)] | None = None
    on: ClassNames | None = None
    never: ClassNames | None = None


#: How long a unique key is taken: to the end of its window; less, if its job ends otherwise than `succeeded`; or less,
#: however its job ends.
Until = Literal["window", "success", "final"]


class UniqueSpec(Model):
    """A key that only one job of an app has at a time.

    ``for`` is the length of the window in seconds, from the first job's acceptance; ``until`` says whether the end of
    that job gives the key free earlier: never (``window``), if it did not succeed (``success``), always (``final``).
    """

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True, validate_by_alias=True)

    key: Annotated[str, Field(min_length=1, max_length=256)]
    window: Annotated[float, Field(ge=1, le=2_592_000, alias="for")]
    until: Until = "window"


class UniqueKey(Model):
    """A unique key as history shows it; ``expires_at`` is the end of the window that its job would begin."""

    key: str
    until: Until
    expires_at: Millis


#: Most members of a batch, and the longest time that the first of them waits for the others, in seconds.
MAX_GROUP_SIZE, MAX_GROUP_WAIT = 1_000, 900.0


class GroupSpec(Model):
    """A group whose members are delivered together; of each group the first member's size and wait count.

    ``max_wait`` is in seconds, from the first member's acceptance, or from the time for which it asked.
    """

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)

    key: Annotated[str, Field(min_length=1, max_length=256)]
    max_size: Annotated[int, Field(ge=1, le=MAX_GROUP_SIZE)] = 100
    max_wait: Annotated[float, Field(ge=0.1, le=MAX_GROUP_WAIT)] = 10.0


class JobRequest(BaseModel):
    """The body of a published job. Fields that are not built yet are refused before this model is asked."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)

    type: str | None = None
    payload: dict[str, Any] | None = None
    id: Annotated[str, Field(pattern=rf"^[A-Za-z0-9._-]{{1,{MAX_ID_LENGTH}}}$")] | None = None
    priority: Priority = "normal"
    delay: Annotated[float, Field(ge=0, le=MAX_DELAY_SECONDS)] | None = None
    run_at: Annotated[str, Field(max_length=64)] | None = None
    expires: Annotated[float, Field(gt=0)] | None = None
    deadline: Annotated[float, Field(gt=0)] | None = None
    timeout: Annotated[float, Field(ge=0.1, le=86_400)] | None = None
    retry: RetrySpec | None = None
    group: GroupSpec | None = None
    unique: UniqueSpec | None = None
    lane: Annotated[str, Field(pattern=r"^[a-z0-9_-]{1,32}$")] | None = None
    tags: Annotated[tuple[Tag, ...], Field(max_length=10, strict=False)] = ()


class Trace(Model):
    """W3C trace context of the client, validated at intake and carried through to the handler."""

    traceparent: str
    tracestate: str | None = None


class ErrorInfo(Model):
    """Why an attempt failed: exception class name, its message and its traceback, all trimmed."""

    type: str
    message: str = ""
    traceback: str | None = None
