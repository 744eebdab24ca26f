"""Events of runs that forked, merged in every order: what an order may decide, and that it decides nothing else.

A run forks where a step is delivered again although it was done. Then, and only then, an order of arrival can be seen
in the document: of two ends of a run the first recorded stands, and of two acceptances the first recorded one's time.
"""

from __future__ import annotations

import itertools
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dispatcher.core.history import Document, merge
from dispatcher.core.lifecycle import FINAL
from schemas import (
    Accepted,
    Ended,
    ErrorInfo,
    Event,
    GroupSpec,
    JobState,
    Moved,
    Outcome,
    Refused,
    Started,
    WorkMessage,
)
from schemas.events import about
from tests.unit.samples import NOW, make_work
from tests.unit.world import KINDS, played

#: What the first recorded end of a run says of the job.
OF_THE_END = ("state", "seq", "finished_at", "result", "error")
#: What follows from the first recorded acceptance.
OF_THE_ACCEPTANCE = ("accepted_at", "wait_ms")

ACTS = st.lists(
    st.tuples(st.sampled_from(KINDS), st.integers(0, 9), st.booleans(), st.sampled_from(Outcome)), max_size=25
)


def recorded(events: list[Event], data: st.DataObject) -> tuple[Document, list[Event]]:
    """The document of these events, doubled, shuffled and cut into batches; and the order in which they came."""
    copies = data.draw(st.lists(st.sampled_from(events), max_size=4))
    order = data.draw(st.permutations([*events, *copies]))
    document, done = None, 0
    while done < len(order):
        cut = data.draw(st.integers(1, len(order) - done))
        document = merge(document, order[done : done + cut])
        done += cut
    assert document is not None
    return document, order


def ends_of_the_last_run(events: list[Event]) -> list[Any]:
    """The events that end the latest run of these, each once, in their order."""
    last = max(event.run for event in events)  # type: ignore[union-attr]
    ends = [e for e in events if e.run == last and getattr(e, "state", None) in FINAL]  # type: ignore[union-attr]
    return [end for i, end in enumerate(ends) if end not in ends[:i]]


def without(document: Document, names: tuple[str, ...]) -> Document:
    """A document but for these fields."""
    return {name: value for name, value in document.items() if name not in names}


@settings(max_examples=100)
@given(ACTS, st.data())
def test_an_order_decides_which_end_of_a_forked_run_stands_and_nothing_else(acts: Any, data: st.DataObject) -> None:
    """With one end, or none, any order gives one document; with more, all but the end's own fields are the same."""
    events = played(acts, again=False).told
    expected = merge(None, events)
    document, order = recorded(events, data)
    ends = ends_of_the_last_run(order)
    if len(ends) < 2:
        assert document == expected
        return
    assert without(document, OF_THE_END) == without(expected, OF_THE_END)
    assert_ended_by(document, ends[0])


@settings(max_examples=60)
@given(ACTS, st.data())
def test_of_two_acceptances_the_first_recorded_gives_the_time(acts: Any, data: st.DataObject) -> None:
    """Intake that takes a job in twice leaves two times of acceptance; everything else is the same in any order."""
    events = played(acts, again=True).told
    document, order = recorded(events, data)
    expected = merge(None, events)
    either = (*OF_THE_END, *OF_THE_ACCEPTANCE)
    assert without(document, either) == without(expected, either)
    assert document["accepted_at"] == order[0].accepted_at  # type: ignore[union-attr]
    attempts = document["attempts"]
    waited = min((a["started_at"] for a in attempts), default=0) - document["accepted_at"]
    assert document.get("wait_ms") == (max(waited, 0) if attempts else None)
    if ends := ends_of_the_last_run(order):
        assert_ended_by(document, ends[0])


def assert_ended_by(document: Document, end: Ended | Moved) -> None:
    """State, step, time, error and result are those of this end, whole: never a mixture of two."""
    at = end.finished_at if isinstance(end, Ended) else end.at
    assert (document["state"], document["seq"], document["finished_at"]) == (end.state, end.seq, at)
    assert document.get("error") == (end.error.model_dump(exclude_none=True) if end.error else None)
    assert ("result" in document) is (end.state is JobState.SUCCEEDED)
    assert document.get("result") == getattr(end, "result", None)
    assert "due_at" not in document


@settings(max_examples=60)
@given(ACTS, st.booleans(), st.data())
def test_a_forked_run_told_again_changes_nothing(acts: Any, again: bool, data: st.DataObject) -> None:
    """Any part of what is recorded, in any order, any number of times, makes an equal document."""
    events = played(acts, again).told
    document, _ = recorded(events, data)
    once_more = data.draw(st.lists(st.sampled_from(events), min_size=1, max_size=8))
    assert merge(document, once_more) == document


def put_off(work: WorkMessage, execution: str, state: JobState, due_at: int, error: ErrorInfo | None = None) -> Ended:
    """An execution of a step that is followed by another."""
    return Ended(
        **about(work),
        n=work.n,
        execution=execution,
        started_at=NOW,
        finished_at=NOW,
        worker="w",
        outcome=Outcome.SNOOZED if state is JobState.SCHEDULED else Outcome.FAILED,
        state=state,
        due_at=due_at,
        error=error,
    )


def test_of_two_waits_for_the_same_step_the_one_that_is_over_first_is_shown() -> None:
    """A step that was executed twice is followed by two messages; the first that is due is what comes next."""
    work = make_work()
    early = put_off(work, "a", JobState.SCHEDULED, NOW + 1_000)
    late = put_off(work, "b", JobState.RETRYING, NOW + 2_000, ErrorInfo(type="E"))
    for order in itertools.permutations([early, late]):
        document = merge(None, order)
        assert (document["state"], document["due_at"]) == ("scheduled", NOW + 1_000)
        assert "error" not in document


def test_two_waits_that_end_together_are_told_apart_all_the_same() -> None:
    """With the same due time it is one of the two in every order, whole: its state with its error."""
    work = make_work()
    waits = [
        put_off(work, "a", JobState.SCHEDULED, NOW + 1_000),
        put_off(work, "b", JobState.RETRYING, NOW + 1_000, ErrorInfo(type="B", message="b")),
        put_off(work, "c", JobState.RETRYING, NOW + 1_000, ErrorInfo(type="B", message="c", traceback="…")),
        put_off(work, "d", JobState.RETRYING, NOW + 1_000, ErrorInfo(type="B", message="c")),
    ]
    documents = [merge(None, order) for order in itertools.permutations(waits)]
    assert all(document == documents[0] for document in documents)
    shown = next(wait for wait in waits if wait.state == documents[0]["state"])
    assert ("error" in documents[0]) is (shown.error is not None)


REFUSED = Refused(app="shop", id="job-1", key_id="k2", type="", at=NOW - 9, code="invalid_field", message="id: no")


@settings(max_examples=60)
@given(ACTS, st.data())
def test_a_refusal_touches_no_job(acts: Any, data: st.DataObject) -> None:
    """A client may use the id that it was told with a refusal: the job is recorded, whichever comes first."""
    events = played(acts, again=False).told
    if len(ends_of_the_last_run(events)) < 2:
        document, _ = recorded([*events, REFUSED], data)
        assert document == merge(None, events)


def test_a_job_takes_the_place_of_a_refusal_and_keeps_its_revision() -> None:
    """Nothing of the refusal stays but the number that guards the document's writes."""
    work = make_work()
    accepted = Accepted(**about(work), key_id="k", payload={"a": 1}, tags=("t",))
    start = Started(**about(work), n=1, execution="e", started_at=NOW, worker="w")
    stored = {**merge(None, [REFUSED]), "rev": 3}
    for events in ([accepted], [start], [start, accepted], [accepted, REFUSED]):
        alone = merge(None, [e for e in events if e is not REFUSED])
        assert merge(stored, events) == {**alone, "rev": 3}
    assert merge(stored, [REFUSED]) == stored


def moved(work: WorkMessage, at: int, due_at: int) -> Moved:
    """An operator gives the step that waits another time: it is another step then."""
    return Moved(**about(work), at=at, state=JobState.SCHEDULED, due_at=due_at, by_hand=True)


#: A job that asks for a time, is moved twice, starts at the time to which it was moved last, and succeeds.
ASKED, MOVED = NOW + 90_000, (NOW + 900_000, NOW + 300_000)
STEPS = [make_work(due_at=ASKED), *(make_work(seq=n, due_at=due) for n, due in enumerate(MOVED, 2))]
WAITS = [
    Accepted(**about(STEPS[0]), key_id="k", payload={"a": 1}, due_at=ASKED),
    *(moved(step, NOW + at, due) for at, step, due in zip((5, 9), STEPS, MOVED, strict=False)),
]
RUNS = [
    Started(**about(STEPS[2]), n=1, execution="e", started_at=MOVED[1] + 7, worker="w"),
    Ended(
        **about(STEPS[2]), n=1, execution="e", started_at=MOVED[1] + 7, finished_at=MOVED[1] + 20, worker="w",
        outcome=Outcome.SUCCEEDED, state=JobState.SUCCEEDED,
    ),
]  # fmt: skip


def orders(events: list[Event]) -> list[Document]:
    """The documents of these events in every order, told together and one by one."""
    together = [merge(None, order) for order in itertools.permutations(events)]
    apart = []
    for order in itertools.permutations(events):
        document = merge(None, order[:1])
        for event in order[1:]:
            document = merge(document, [event])
        apart.append(document)
    return [*together, *apart]


@pytest.mark.parametrize("runs", [0, 1, 2])
@pytest.mark.parametrize("first", [0, 1], ids=["accepted", "acceptance lost"])
def test_a_job_that_was_moved_by_hand_is_due_when_it_was_said_last(runs: int, first: int) -> None:
    """In any order: before its acceptance, after the start or the end of its step, and each of it twice."""
    events = [*WAITS[first:], *RUNS[:runs]]
    expected = merge(None, events)
    assert expected["state"] == ("scheduled", "running", "succeeded")[runs]
    assert (expected["run_at"], expected.get("due_at")) == (MOVED[1], None if runs else MOVED[1])
    assert expected.get("wait_ms") == (7 if runs else None)
    assert all(document == expected for document in orders(events))
    for twice in WAITS[1:]:
        assert all(merge(document, [twice]) == expected for document in orders(events))
    if not first:
        assert expected["payload"] == {"a": 1}


@pytest.mark.parametrize("due", [(NOW + 300_000, NOW + 900_000), (NOW + 900_000, NOW + 300_000)])
def test_of_two_times_for_the_same_step_the_one_that_was_said_last_stands(due: tuple[int, int]) -> None:
    """Whether it is the earlier or the later of the two, before and after the start of what follows."""
    early, late = (moved(STEPS[0], NOW + at, to) for at, to in zip((5, 6), due, strict=True))
    for rest in (
        [],
        [WAITS[0]],
        [WAITS[0], Started(**about(STEPS[1]), n=1, execution="e", started_at=NOW, worker="w")],
    ):
        documents = orders([early, late, *rest])
        assert {document["run_at"] for document in documents} == {due[1]}
        assert {document.get("due_at") for document in documents} == ({None} if len(rest) > 1 else {due[1]})
        assert all(document == documents[0] for document in documents)


def test_what_a_worker_says_of_the_same_step_does_not_hide_what_an_operator_said() -> None:
    """A forked run: one copy of the step was put off or failed, the other one was moved by hand."""
    waits = [
        put_off(STEPS[0], "a", JobState.SCHEDULED, NOW + 1_000),
        put_off(STEPS[0], "b", JobState.RETRYING, NOW + 900_000, ErrorInfo(type="E")),
        moved(STEPS[0], NOW + 5, NOW + 300_000),
        moved(STEPS[0], NOW + 6, NOW + 200_000),
    ]
    for document in (documents := orders(waits)):
        assert (document["state"], document["due_at"]) == ("scheduled", NOW + 200_000)
        assert "error" not in document
        assert document == documents[0]


@pytest.mark.parametrize("run", [2, 3])
def test_a_move_of_an_earlier_run_changes_nothing_of_a_later_one(run: int) -> None:
    """However late it is heard of: the later run's waits are as if nobody had moved anything."""
    again = make_work(run=run)
    waits = [put_off(again, "a", JobState.RETRYING, NOW + 2_000), put_off(again, "b", JobState.SCHEDULED, NOW + 1_000)]
    for document in (documents := orders([moved(make_work(), NOW + 5, NOW + 300_000), *waits])):
        assert (document["run"], document["state"], document["due_at"]) == (run, "scheduled", NOW + 1_000)
        assert document == documents[0]


@pytest.mark.parametrize("start", [None, STEPS[0], STEPS[1]])
def test_a_job_that_was_cancelled_while_it_waited_is_cancelled_in_every_order(start: WorkMessage | None) -> None:
    """Whatever is heard of it later or before: its moves, and the start of a step that was about to begin."""
    end = Moved(**about(STEPS[2]), at=NOW + 50, state=JobState.CANCELLED, error=ErrorInfo(type="Cancelled"))
    starts = [] if start is None else [Started(**about(start), n=1, execution="e", started_at=NOW + 40, worker="w")]
    documents = orders([*WAITS, end, *starts])
    for document in documents:
        assert (document["state"], document["finished_at"], document["run_at"]) == ("cancelled", NOW + 50, MOVED[1])
        assert document["error"] == {"type": "Cancelled", "message": ""}
        assert "due_at" not in document
        assert document == documents[0]


def test_a_member_of_two_batches_is_told_of_alike_in_any_order() -> None:
    """A dispatcher died after it flushed, and another one flushed again: one batch is named, and the one that ran."""
    work = make_work(group=GroupSpec(key="a"))
    out = work.model_copy(update={"group": None, "seq": 2})
    accepted = Accepted(**about(work), key_id="k", payload=work.payload, group=work.group)
    common: dict[str, Any] = about(out) | {"n": 1, "execution": "e", "started_at": NOW + 9, "worker": "w"}
    ended = Ended(**common, batch="b2", finished_at=NOW + 20, outcome=Outcome.SUCCEEDED, state=JobState.SUCCEEDED)
    flushed = [Moved(**about(work), at=NOW + at, state=JobState.QUEUED, batch=f"b{at}") for at in (1, 2)]
    events: list[Event] = [accepted, *flushed, Started(**common, batch="b2"), ended]
    documents = [merge(None, order) for order in itertools.permutations(events)]
    assert all(document == documents[0] for document in documents)
    (attempt,) = documents[0]["attempts"]
    assert (documents[0]["state"], documents[0]["batch"], attempt["batch"]) == ("succeeded", "b1", "b2")
    assert documents[0]["group"] == {"key": "a", "max_size": 100, "max_wait": 10.0}
    states = [merge(None, events[:count])["state"] for count in range(1, 6)]
    assert states == ["buffered", "queued", "queued", "running", "succeeded"]
