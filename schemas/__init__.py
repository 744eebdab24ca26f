"""What crosses a wire or a disk: the client's message, the work message, the events and the stored job.

This package imports nothing else of the project. Every format carries its version (``v``) from the first day.
"""

from schemas.events import Accepted, Ended, Event, EventBatch, Moved, Progressed, Refused, Rerun, Resent, Started
from schemas.faults import sentence
from schemas.job import (
    MAX_ID_LENGTH,
    PRIORITIES,
    ErrorInfo,
    GroupSpec,
    JobRequest,
    JobState,
    Outcome,
    Priority,
    RetrySpec,
    Trace,
    UniqueKey,
    UniqueSpec,
)
from schemas.peers import Answer, Question
from schemas.work import BatchMessage, WorkMessage, is_batch, join_batch, read_steps

__all__ = [
    "MAX_ID_LENGTH",
    "PRIORITIES",
    "Accepted",
    "Answer",
    "BatchMessage",
    "Ended",
    "ErrorInfo",
    "Event",
    "EventBatch",
    "GroupSpec",
    "JobRequest",
    "JobState",
    "Moved",
    "Outcome",
    "Priority",
    "Progressed",
    "Question",
    "Refused",
    "Rerun",
    "Resent",
    "RetrySpec",
    "Started",
    "Trace",
    "UniqueKey",
    "UniqueSpec",
    "WorkMessage",
    "is_batch",
    "join_batch",
    "read_steps",
    "sentence",
]
