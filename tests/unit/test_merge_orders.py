"""Events of runs that forked, merged in every order: what an order may decide, and that it decides nothing else.

A run forks where a step is delivered again although it was done. Then, and only then, an order of arrival can be seen
in the document: of two ends of a run the first recorded stands, and of two acceptances the first recorded one's time.
"""

from __future__ import annotations

import itertools
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from dispatcher.core.history import Document, merge
from dispatcher.core.lifecycle import FINAL
from schemas import Accepted, Ended, ErrorInfo, Event, JobState, Moved, Outcome, Refused, Started, WorkMessage
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
