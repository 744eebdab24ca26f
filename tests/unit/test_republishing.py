"""From a job's document its present step is made again, as whoever published it made it."""

from __future__ import annotations

from typing import Any

import pytest

from dispatcher.core import outcome
from dispatcher.core.history import Document, merge
from dispatcher.core.outcome import Execution
from dispatcher.core.retry import RetryPolicy
from dispatcher.services.republishing import present_step
from schemas import Accepted, Ended, ErrorInfo, GroupSpec, JobState, Moved, Outcome, Rerun, Started, WorkMessage
from schemas.events import about
from tests.unit.samples import NOW, make_work

POLICY = RetryPolicy(max_attempts=5)
ERROR = ErrorInfo(type="ConnectionError", message="broken")


def accepted(work: WorkMessage, **fields: Any) -> Accepted:
    """What intake told of a job."""
    names = ("payload", "tags", "retry", "due_at", "expires_at", "deadline_at", "group")
    return Accepted(**about(work), key_id="k", **{name: getattr(work, name) for name in names} | fields)


def executed(work: WorkMessage, execution: Execution) -> tuple[list[Any], WorkMessage]:
    """What a worker tells of an execution, and the step that it publishes."""
    followed = outcome.after(work, execution, POLICY, NOW + 50, 0.5)
    assert followed.message is not None
    common = about(work) | {"n": work.n, "execution": f"e-{work.seq}", "started_at": NOW + work.seq, "worker": "w"}
    ended = Ended(
        **common, finished_at=NOW + 50, outcome=execution.outcome, state=followed.state, error=execution.error,
        due_at=followed.message.due_at,
    )  # fmt: skip
    return [Started(**common), ended], followed.message


def document(*events: Any) -> Document:
    """What history has."""
    return merge(None, events)


@pytest.mark.parametrize(
    "fields",
    [
        {},
        {"tags": ("a", "b"), "deadline_at": NOW + 9_000},
        {"due_at": NOW + 30_000, "expires_at": NOW + 90_000},
        {"group": GroupSpec(key="week", max_size=10, max_wait=5.0)},
    ],
    ids=["plain", "tags", "delayed", "group"],
)
def test_a_job_that_never_started(fields: dict[str, Any]) -> None:
    """It is the message that intake published."""
    work = make_work(**fields)
    assert present_step(document(accepted(work))) == work


@pytest.mark.parametrize(
    "execution",
    [
        Execution(Outcome.FAILED, ERROR, ("ConnectionError",)),
        Execution(Outcome.TIMED_OUT, ERROR, ("TimeoutError",)),
        Execution(Outcome.CRASHED, ERROR),
        Execution(Outcome.SNOOZED, snooze=30.0),
    ],
    ids=lambda execution: str(execution.outcome),
)
def test_a_job_that_was_put_off(execution: Execution) -> None:
    """It is the step that the worker put into the ladder, also after two of them; and while the next one runs."""
    work = make_work()
    first, second = executed(work, execution)
    again, third = executed(second, execution)
    assert present_step(document(accepted(work), *first)) == second
    assert present_step(document(accepted(work), *first, *again)) == third
    running = present_step(document(accepted(work), *first, again[0]))
    assert running == second.model_copy(update={"due_at": None})


def test_a_lost_execution_spends_no_attempt() -> None:
    """Its worker died with the broker: the same attempt runs again."""
    work = make_work()
    (started, _), _ = executed(work, Execution(Outcome.SNOOZED, snooze=1.0))
    assert present_step(document(accepted(work), started)) == work


def test_a_later_run_begins_anew() -> None:
    """What an earlier run spent does not count, and it does not expire."""
    work = make_work(expires_at=NOW + 1_000)
    events, _ = executed(work, Execution(Outcome.CRASHED, ERROR))
    rerun = outcome.new_run(work)
    document_ = document(accepted(work), *events, Rerun(**about(rerun), at=NOW + 99, by="retry"))
    assert present_step(document_) == rerun


def test_a_member_whose_batch_was_flushed_comes_alone() -> None:
    """Its group is over: it does not wait for another."""
    work = make_work(group=GroupSpec(key="week", max_size=10, max_wait=5.0))
    flushed = Moved(**about(work), at=NOW + 5, state=JobState.QUEUED, batch="b")
    step = present_step(document(accepted(work), flushed))
    assert step == work.model_copy(update={"group": None, "seq": 2})


@pytest.mark.parametrize("said", [{"payload": None}, {"redacted": True}])
def test_without_its_payload_there_is_no_step(said: dict[str, Any]) -> None:
    """What the configuration keeps out of history cannot be made again."""
    assert present_step(document(accepted(make_work(), **said))) is None
    assert present_step(document(Started(**about(make_work()), n=1, execution="e", started_at=NOW, worker="w"))) is None
