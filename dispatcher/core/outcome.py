"""What follows an execution: the job's next state, and the message that carries it there."""

from __future__ import annotations

from dataclasses import dataclass

from dispatcher.core.retry import RetryPolicy, delay_after, may_retry
from schemas import ErrorInfo, JobState, Outcome, WorkMessage


@dataclass(frozen=True, slots=True)
class Execution:
    """How a handler ended.

    ``names`` are the exception's class names along its bases; ``snooze`` seconds for outcome ``snoozed``;
    ``retryable`` is False for failures that no retry can mend.
    """

    outcome: Outcome
    error: ErrorInfo | None = None
    names: tuple[str, ...] = ()
    snooze: float = 0.0
    retryable: bool = True


@dataclass(frozen=True, slots=True)
class Next:
    """Where a job goes. ``message`` is None where it is done; ``delay`` None where it is parked."""

    state: JobState
    message: WorkMessage | None = None
    delay: float | None = None


_DONE = {Outcome.SUCCEEDED: JobState.SUCCEEDED, Outcome.CANCELLED: JobState.CANCELLED}


def after(work: WorkMessage, execution: Execution, policy: RetryPolicy, now: int, chance: float) -> Next:
    """The next step of a job whose execution ended.

    Args:
        work: the step that was executed.
        execution: how it ended.
        policy: the job's complete retry policy.
        now: milliseconds since the epoch at which it ended.
        chance: a random number in [0, 1), for jitter.
    """
    if done := _DONE.get(execution.outcome):
        return Next(done)
    if execution.outcome is Outcome.SNOOZED:
        return Next(JobState.SCHEDULED, _later(work, now, execution.snooze, work.n), execution.snooze)
    if execution.retryable and may_retry(policy, work.n, execution.names):
        delay = delay_after(policy, work.n, chance)
        later = _later(work, now, delay, work.n + 1).model_copy(update={"suspect": _suspect(work, execution)})
        return Next(JobState.RETRYING, later, delay)
    state = JobState.TIMED_OUT if execution.outcome is Outcome.TIMED_OUT else JobState.FAILED
    return Next(state, work.model_copy(update={"error": execution.error, "suspect": _suspect(work, execution)}))


#: Type of the error of a job that no worker has a handler for.
NO_HANDLER = "no_handler"


def without_handler(work: WorkMessage, now: int, delay: float, limit: float) -> Next:
    """A job whose type no handler here knows: put off without spending an attempt, failed after ``limit`` seconds."""
    since = work.unhandled_since if work.unhandled_since is not None else now
    if now - since >= limit * 1000:
        error = ErrorInfo(
            type=NO_HANDLER,
            message=f"no worker of lane {work.lane} had a handler for type {work.type} within {limit:g} s",
        )
        return Next(JobState.FAILED, work.model_copy(update={"error": error}))
    later = _later(work, now, delay, work.n).model_copy(update={"unhandled_since": since})
    return Next(JobState.SCHEDULED, later, delay)


def put_off(work: WorkMessage) -> ErrorInfo:
    """What history says of a job while it is put off for want of a handler."""
    return ErrorInfo(
        type=NO_HANDLER,
        message=f"a worker of lane {work.lane} had no handler for type {work.type}; put off for another",
    )


def new_run(work: WorkMessage) -> WorkMessage:
    """The first step of the next run, for a retry or replay by hand."""
    update = {"run": work.run + 1, "n": 1, "seq": 1, "error": None}
    # whoever starts it by hand wants it now, however late
    update |= dict.fromkeys(("due_at", "expires_at", "unhandled_since"))
    return work.model_copy(update=update)


def _suspect(work: WorkMessage, execution: Execution) -> bool:
    """Whether what follows is to run in a process of its own, since it killed one."""
    return work.suspect or execution.outcome is Outcome.CRASHED


def _later(work: WorkMessage, now: int, delay: float, n: int) -> WorkMessage:
    due = now + round(delay * 1000)
    return work.model_copy(update={"n": n, "seq": work.seq + 1, "due_at": due, "unhandled_since": None})
