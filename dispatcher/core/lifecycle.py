"""The job's states as a table: what each means, and who moves a job out of it to where.

docs/states.md shows the same table; a test holds the two together. A job is always in exactly one state. Its
*place* in a run is the pair (seq, phase): events arrive in any order, and only a later place moves the state.
A final state closes its run: the first one recorded stands.
"""

from __future__ import annotations

from dataclasses import dataclass

from schemas import JobState

_S = JobState


@dataclass(frozen=True, slots=True)
class StateRule:
    """One row of the table."""

    meaning: str
    moved_by: str
    to: frozenset[JobState]


FINAL: frozenset[JobState] = frozenset(
    {_S.SUCCEEDED, _S.FAILED, _S.TIMED_OUT, _S.CANCELLED, _S.EXPIRED, _S.REJECTED, _S.DUPLICATE}
)

#: Final states whose jobs are also parked in ``parked.v1.<lane>``.
PARKED: frozenset[JobState] = frozenset({_S.FAILED, _S.TIMED_OUT})

_ENDS = frozenset({_S.SUCCEEDED, _S.FAILED, _S.TIMED_OUT, _S.CANCELLED})
_BY_HAND = frozenset({_S.QUEUED})

STATES: dict[JobState, StateRule] = {
    _S.SCHEDULED: StateRule(
        "waits for its time: a client's delay, a snooze, or a worker that has its handler",
        "scheduler or delay ladder, when it is due",
        frozenset({_S.QUEUED, _S.RUNNING, _S.SCHEDULED, _S.CANCELLED, _S.EXPIRED, _S.FAILED}),
    ),
    _S.WAITING: StateRule(
        "waits for the jobs it depends on",
        "recorder, when the last of them succeeded or one did not",
        frozenset({_S.QUEUED, _S.CANCELLED, _S.EXPIRED}),
    ),
    _S.BUFFERED: StateRule(
        "a member of a group that is being gathered",
        "dispatcher that holds the group, when it is flushed",
        frozenset({_S.QUEUED, _S.CANCELLED, _S.EXPIRED, _S.FAILED}),
    ),
    _S.QUEUED: StateRule(
        "in the work queue of its lane and priority",
        "worker that takes it",
        frozenset({_S.RUNNING, _S.SCHEDULED, _S.CANCELLED, _S.EXPIRED, _S.FAILED}),
    ),
    _S.RUNNING: StateRule(
        "a worker runs its handler",
        "that worker, when the attempt ends",
        frozenset({_S.RETRYING, _S.SCHEDULED}) | _ENDS,
    ),
    _S.RETRYING: StateRule(
        "in the delay ladder after a failed attempt",
        "delay ladder, when its backoff is over; then the worker that takes it",
        frozenset({_S.RUNNING, _S.SCHEDULED, _S.CANCELLED, _S.EXPIRED, _S.FAILED}),
    ),
    _S.SUCCEEDED: StateRule("its handler returned", "nobody, or an operator: jobs retry", _BY_HAND),
    _S.FAILED: StateRule(
        "attempts used up, or not retried; parked with its error",
        "operator: jobs retry, dead replay",
        _BY_HAND,
    ),
    _S.TIMED_OUT: StateRule(
        "its last attempt ran out of time; parked with its error",
        "operator: jobs retry, dead replay",
        _BY_HAND,
    ),
    _S.CANCELLED: StateRule(
        "ended by its handler (Cancel) or by an operator", "nobody, or an operator: jobs retry", _BY_HAND
    ),
    _S.EXPIRED: StateRule("not started within its expires", "nobody, or an operator: jobs retry", _BY_HAND),
    _S.REJECTED: StateRule("refused at intake; a document of its own", "nobody", frozenset()),
    _S.DUPLICATE: StateRule("its unique key was taken", "nobody", frozenset()),
}

#: Final states from which a new run may be started by hand.
RERUNNABLE: frozenset[JobState] = frozenset(s for s in FINAL if STATES[s].to)

#: Within one seq a job waits (0) before it runs (1).
_PHASE_RUNNING = 1


def place(state: JobState, seq: int) -> tuple[int, int]:
    """Where a non-final state stands in its run.

    A job put off by step ``seq`` (retrying, scheduled) already waits for step ``seq + 1``; callers pass the seq of
    the step that the state waits for or runs in.
    """
    return seq, _PHASE_RUNNING if state is JobState.RUNNING else 0


def supersedes(new: JobState, new_run: int, new_seq: int, old: JobState | None, old_run: int, old_seq: int) -> bool:
    """Whether a reported state replaces the recorded one.

    A later run always does. Within a run a final state stands once recorded, beats every other, and otherwise
    the later place wins.
    """
    if old is None or new_run != old_run:
        return old is None or new_run > old_run
    if old in FINAL:
        return False
    return new in FINAL or place(new, new_seq) > place(old, old_seq)


def is_past(run: int, seq: int, recorded_run: int, recorded_seq: int, recorded_state: JobState) -> bool:
    """Whether history says that a step's run went on without it: a later run, this one's end, or a later step of it.

    The step may be dropped then: what history hears of is published after the message that follows from it. A
    refusal ends no run.
    """
    if recorded_state is JobState.REJECTED:
        return False
    return recorded_run > run or (recorded_run == run and (recorded_state in FINAL or recorded_seq > seq))
