"""What follows an execution: the table of outcomes, the missing handler, the new run."""

from __future__ import annotations

from typing import Any

import pytest

from dispatcher.core.outcome import Execution, Next, after, new_run, without_handler
from dispatcher.core.retry import RetryPolicy
from dispatcher.core.timing import has_expired
from dispatcher.services.operations import work_of
from schemas import ErrorInfo, JobState, Outcome, WorkMessage
from tests.unit.samples import NOW, make_work

ERROR = ErrorInfo(type="ValueError", message="no")
NAMES = ("ValueError", "Exception")
S, O = JobState, Outcome  # noqa: E741


def follow(work: WorkMessage, outcome: Outcome, policy: RetryPolicy | None = None, **fields: Any) -> Next:
    """The next step after an execution that ended at NOW."""
    return after(work, Execution(outcome, ERROR, NAMES, **fields), policy or RetryPolicy(), NOW, 0.5)


@pytest.mark.parametrize(
    ("outcome", "n", "state", "parked"),
    [
        (O.SUCCEEDED, 1, S.SUCCEEDED, False),
        (O.SUCCEEDED, 5, S.SUCCEEDED, False),
        (O.CANCELLED, 1, S.CANCELLED, False),
        (O.FAILED, 1, S.RETRYING, False),
        (O.FAILED, 4, S.RETRYING, False),
        (O.FAILED, 5, S.FAILED, True),
        (O.TIMED_OUT, 4, S.RETRYING, False),
        (O.TIMED_OUT, 5, S.TIMED_OUT, True),
        (O.CRASHED, 4, S.RETRYING, False),
        (O.CRASHED, 5, S.FAILED, True),
        (O.SNOOZED, 1, S.SCHEDULED, False),
        (O.SNOOZED, 5, S.SCHEDULED, False),
        (O.SNOOZED, 99, S.SCHEDULED, False),
    ],
)
def test_where_each_outcome_leads(outcome: Outcome, n: int, state: JobState, parked: bool) -> None:
    """With the default five attempts; a job that ends failed or timed_out is parked with its error."""
    following = follow(make_work(n=n, seq=n), outcome, snooze=30.0)
    assert following.state is state
    assert (following.message is not None and following.delay is None) is parked
    if parked:
        assert following.message == make_work(n=n, seq=n, error=ERROR, suspect=outcome is O.CRASHED)


@pytest.mark.parametrize("n", [1, 2, 3, 4])
def test_a_retry_is_the_next_attempt_after_its_backoff(n: int) -> None:
    """n and seq grow by one, the step is due when the backoff is over, everything else stays."""
    work = make_work(n=n, seq=n + 3, tags=("t",), timeout=5.0, unhandled_since=NOW - 9)
    following = follow(work, O.FAILED)
    delay = 2 ** (n - 1)
    assert following.delay == delay
    assert following.message == work.model_copy(
        update={"n": n + 1, "seq": n + 4, "due_at": NOW + delay * 1_000, "unhandled_since": None}
    )


def test_a_snooze_spends_no_attempt() -> None:
    """The same n comes back as a new step."""
    work = make_work(n=2, seq=5)
    following = follow(work, O.SNOOZED, snooze=30.5)
    assert following == Next(S.SCHEDULED, work.model_copy(update={"seq": 6, "due_at": NOW + 30_500}), 30.5)
    at_once = follow(work, O.SNOOZED, snooze=0.0)
    assert (at_once.state, at_once.delay) == (S.SCHEDULED, 0.0)


def test_what_no_retry_can_mend_is_not_retried() -> None:
    """A payload that does not fit, a result that cannot be stored: failed at the first attempt."""
    following = follow(make_work(), O.FAILED, retryable=False)
    assert (following.state, following.delay) == (S.FAILED, None)


def test_the_policy_decides_on_the_exceptions_names() -> None:
    """`never` ends a job at once, `on` limits what is retried; a timeout obeys them too."""
    assert follow(make_work(), O.FAILED, RetryPolicy(never=("Exception",))).state is S.FAILED
    assert follow(make_work(), O.FAILED, RetryPolicy(on=("OSError",))).state is S.FAILED
    assert follow(make_work(), O.FAILED, RetryPolicy(on=("ValueError",))).state is S.RETRYING
    assert follow(make_work(), O.TIMED_OUT, RetryPolicy(on=("OSError",))).state is S.TIMED_OUT


def test_a_run_by_hand_starts_now_and_does_not_expire() -> None:
    """Neither from the parked message nor from history; the deadline still counts, since the job is late then."""
    work = make_work(n=3, seq=5, due_at=NOW, expires_at=NOW + 1, deadline_at=NOW + 2, unhandled_since=NOW)
    document = work.model_dump(exclude_none=True) | {"expires_at": NOW + 1, "due_at": NOW}
    for last in (work, work_of(document)):
        first = new_run(last)
        assert (first.run, first.n, first.seq) == (work.run + 1, 1, 1)
        assert (first.due_at, first.expires_at, first.unhandled_since) == (None, None, None)
        assert first.deadline_at == NOW + 2
        assert not has_expired(first, NOW + 10**9)


def test_jitter_moves_delay_and_due_time_alike() -> None:
    """Half of it for a chance of one half."""
    following = follow(make_work(), O.FAILED, RetryPolicy(base=8, jitter=1))
    assert following.delay == 4
    assert following.message is not None
    assert following.message.due_at == NOW + 4_000


def test_a_job_without_a_handler_is_put_off_and_at_last_fails() -> None:
    """Every 5 s for 10 minutes, without spending an attempt; then failed, parked, error type no_handler."""
    work, now, steps = make_work(n=3), NOW, 0
    while (following := without_handler(work, now, 5, 600)).state is S.SCHEDULED:
        assert following.message is not None
        assert following.delay == 5
        assert following.message.n == 3
        assert following.message.seq == work.seq + 1
        assert following.message.unhandled_since == NOW
        assert following.message.due_at == now + 5_000
        work, now, steps = following.message, now + 5_000, steps + 1
    assert (steps, now) == (120, NOW + 600_000)
    assert (following.state, following.delay) == (S.FAILED, None)
    assert following.message is not None
    assert following.message.error is not None
    assert following.message.error.type == "no_handler"
    assert work.type in following.message.error.message


def test_an_execution_forgets_that_a_handler_was_missing() -> None:
    """The ten minutes count anew after a worker with the handler had the job."""
    work = make_work(unhandled_since=NOW - 599_000)
    for outcome in (O.FAILED, O.SNOOZED):
        message = follow(work, outcome, snooze=1.0).message
        assert message is not None
        assert message.unhandled_since is None


def test_a_new_run_begins_from_the_start() -> None:
    """run grows; attempt, step, due time, error and the missing handler begin anew; the rest stays."""
    work = make_work(run=2, n=5, seq=9, due_at=NOW, unhandled_since=NOW, error=ERROR, tags=("t",), timeout=3.0)
    assert new_run(work) == make_work(run=3, tags=("t",), timeout=3.0)


def test_the_step_that_was_executed_is_not_changed() -> None:
    """Messages are values: what failed can be published again as it was."""
    work = make_work()
    before = work.encode()
    for outcome in Outcome:
        follow(work, outcome, snooze=1.0)
    new_run(work)
    assert work.encode() == before


@pytest.mark.parametrize("n", [1, 5], ids=["retried", "parked"])
def test_what_follows_a_crash_runs_alone(n: int) -> None:
    """In every later attempt of the run, however the next one ends."""
    message = follow(make_work(n=n), O.CRASHED).message
    assert message is not None
    assert message.suspect
    later = follow(make_work(n=2, suspect=True), O.FAILED).message
    assert later is not None
    assert later.suspect
    innocent = follow(make_work(n=n), O.FAILED).message
    assert innocent is not None
    assert not innocent.suspect
