"""Merging events into documents: the same document from any order, grouping and number of copies."""

from __future__ import annotations

import copy
from dataclasses import dataclass, field
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dispatcher.core.history import document_id, merge
from dispatcher.core.lifecycle import FINAL
from dispatcher.core.outcome import Execution, after, new_run, without_handler
from dispatcher.core.retry import RetryPolicy
from schemas import (
    Accepted,
    Ended,
    ErrorInfo,
    Event,
    JobState,
    Moved,
    Outcome,
    Refused,
    Rerun,
    RetrySpec,
    Started,
    Trace,
    WorkMessage,
)
from schemas.events import about
from tests.unit.samples import NOW, make_work

POLICY = RetryPolicy(max_attempts=3)
ERRORS = (ErrorInfo(type="ValueError", message="no"), ErrorInfo(type="OSError", message="away", traceback="…"))
STEPS = st.lists(
    st.tuples(
        st.sampled_from([*Outcome, "lost", "no_handler", "running"]),
        st.integers(0, 5_000),
        st.booleans(),
        st.sampled_from(ERRORS),
    ),
    max_size=9,
)


@dataclass
class Life:
    """A job's life as the services would report it, one event after the other."""

    work: WorkMessage
    now: int = NOW
    events: list[Event] = field(default_factory=list)
    final: bool = False

    def accept(self, retry: RetrySpec | None = None, trace: Trace | None = None) -> None:
        """Intake takes the job in."""
        work = self.work
        self.events.append(
            Accepted(**about(work), key_id="k", payload=work.payload, tags=work.tags, retry=retry, trace=trace)
        )

    def step(self, what: Any, wait: int, start_told: bool, error: ErrorInfo) -> None:
        """One delivery of the current step to a worker."""
        if self.final:
            self.rerun()
            return
        self.now += wait
        if what == "no_handler":
            self.put_off()
            return
        common = {
            **about(self.work),
            "n": self.work.n,
            "execution": f"e{len(self.events)}",
            "started_at": self.now,
            "worker": "w",
        }
        if start_told or what in ("lost", "running"):
            self.events.append(Started(**common))
        if what in ("lost", "running"):
            return  # the worker died holding it: the same step is delivered again
        self.now += wait
        failed = what not in (Outcome.SUCCEEDED, Outcome.SNOOZED)
        following = after(self.work, Execution(what, error if failed else None, snooze=2), POLICY, self.now, 0)
        later = following.message if following.delay is not None else None
        self.events.append(
            Ended(
                **common,
                finished_at=self.now,
                outcome=what,
                state=following.state,
                due_at=later.due_at if later else None,
                error=error if failed else None,
                result={"r": wait} if what is Outcome.SUCCEEDED else None,
            )
        )
        self.go_on(following.state, later)

    def put_off(self) -> None:
        """No worker had the handler."""
        following = without_handler(self.work, self.now, 5, 8)
        message = following.message
        assert message is not None
        later = message if following.delay is not None else None
        self.events.append(
            Moved(
                **about(self.work),
                at=self.now,
                state=following.state,
                due_at=later.due_at if later else None,
                error=message.error,
            )
        )
        self.go_on(following.state, later)

    def go_on(self, state: JobState, later: WorkMessage | None) -> None:
        """To the next step, or to the end."""
        self.final = state in FINAL
        if later is not None:
            assert later.due_at is not None
            self.work, self.now = later, later.due_at

    def rerun(self) -> None:
        """An operator starts a new run."""
        self.work = new_run(self.work)
        self.events.append(Rerun(**about(self.work), at=self.now, by="retry"))
        self.final = False


def live(steps: list[tuple[Any, int, bool, ErrorInfo]], **accepted: Any) -> Life:
    """A life of these steps."""
    life = Life(make_work(tags=("t",)))
    life.accept(**accepted)
    for step in steps:
        life.step(*step)
    return life


LIVES = st.builds(
    live, STEPS, retry=st.none() | st.just(RetrySpec(base=2.0)), trace=st.none() | st.just(Trace(traceparent="00-x"))
)


@given(LIVES, st.data())
def test_any_order_grouping_and_number_of_copies_give_the_same_document(life: Life, data: st.DataObject) -> None:
    """Events shuffled, doubled and cut into batches end in the document of the plain order."""
    expected = merge(None, life.events)
    copies = data.draw(st.lists(st.sampled_from(life.events), max_size=4))
    shuffled = data.draw(st.permutations([*life.events, *copies]))
    document = None
    while shuffled:
        cut = data.draw(st.integers(1, len(shuffled)))
        document = merge(document, shuffled[:cut])
        shuffled = shuffled[cut:]
    assert document == expected


@given(LIVES, st.data())
def test_telling_a_document_what_it_knows_changes_nothing(life: Life, data: st.DataObject) -> None:
    """A redelivered batch, whole or in part, in any order, makes an equal document: nothing is written."""
    document = merge(None, life.events)
    again = data.draw(st.lists(st.sampled_from(life.events), min_size=1, max_size=8))
    assert merge(document, again) == document


@given(LIVES, st.integers(0, 20))
def test_merging_changes_neither_document_nor_events(life: Life, cut: int) -> None:
    """What went in is what it was, down to the attempts and the payload."""
    first, rest = life.events[: cut + 1], life.events[cut + 1 :]
    document = merge(None, first)
    kept, events = copy.deepcopy(document), copy.deepcopy(life.events)
    if rest:
        merge(document, rest)
    assert document == kept
    assert life.events == events


@given(LIVES)
def test_attempts_are_every_execution_in_the_order_of_the_contract(life: Life) -> None:
    """By (run, n, started_at), each start once, its end joined to it, null where its worker died."""
    attempts = merge(None, life.events)["attempts"]
    order = [(a["run"], a["n"], a["started_at"]) for a in attempts]
    assert order == sorted(order)
    ends = {e.execution: e for e in life.events if isinstance(e, Ended)}
    starts = {e.execution: e for e in life.events if isinstance(e, Started)} | ends
    assert sorted(a["execution"] for a in attempts) == sorted(starts)
    for attempt in attempts:
        end = ends.get(attempt["execution"])
        assert attempt["outcome"] == (None if end is None else end.outcome)
        assert attempt["finished_at"] == (None if end is None else end.finished_at)
        assert attempt["started_at"] == starts[attempt["execution"]].started_at
        assert attempt.get("error") == (end.error.model_dump(exclude_none=True) if end and end.error else None)


@given(LIVES)
def test_the_document_stands_where_the_job_stands(life: Life) -> None:
    """State, run, due time, end and result are those of the last step."""
    document = merge(None, life.events)
    last = life.events[-1]
    state = {Accepted: "queued", Rerun: "queued", Started: "running"}.get(type(last)) or last.state  # type: ignore[union-attr]
    assert (document["state"], document["run"]) == (state, life.work.run)
    assert document.get("due_at") == getattr(last, "due_at", None)
    assert (document["finished_at"] is not None) is life.final
    assert ("result" in document) is (document["state"] == "succeeded")
    if life.final:
        end = last.finished_at if isinstance(last, Ended) else last.at  # type: ignore[union-attr]
        assert document["finished_at"] == end
    error = getattr(last, "error", None)
    assert document.get("error") == (error.model_dump(exclude_none=True) if error else None)


@given(LIVES)
def test_figures_follow_from_the_attempts(life: Life) -> None:
    """retries: attempts after the first of each run; wait_ms: to the first start; run_ms: the latest that ended."""
    document = merge(None, life.events)
    attempts = document["attempts"]
    later = {(a["run"], a["n"]) for a in attempts} - {(a["run"], 1) for a in attempts}
    assert document.get("retries", 0) == len(later)
    assert document.get("wait_ms") == (min(a["started_at"] for a in attempts) - NOW if attempts else None)
    ended = [a for a in attempts if a["finished_at"] is not None]
    assert document.get("run_ms") == (ended[-1]["finished_at"] - ended[-1]["started_at"] if ended else None)


def ended(
    work: WorkMessage, execution: str, state: JobState, outcome: Outcome, at: int = NOW + 5, **more: Any
) -> Ended:
    """The end of an execution that began at NOW."""
    return Ended(
        **about(work),
        n=work.n,
        execution=execution,
        started_at=NOW,
        finished_at=at,
        worker="w",
        outcome=outcome,
        state=state,
        **more,
    )


def test_the_first_final_state_of_a_run_stands() -> None:
    """Of two executions that end differently the first recorded one is the job's end; the other joins attempts."""
    work = make_work()
    good = ended(work, "a", JobState.SUCCEEDED, Outcome.SUCCEEDED, result=1)
    bad = ended(work, "b", JobState.FAILED, Outcome.FAILED, NOW + 9, error=ERRORS[0])
    for events, state, at in (([good, bad], "succeeded", NOW + 5), ([bad, good], "failed", NOW + 9)):
        together, apart = merge(None, events), merge(merge(None, events[:1]), events[1:])
        assert together == apart
        assert (together["state"], together["finished_at"]) == (state, at)
        assert ("result" in together) is (state == "succeeded")
        assert ("error" in together) is (state == "failed")
        assert [a["outcome"] for a in together["attempts"]] == ["succeeded", "failed"]


def test_a_final_state_beats_a_later_step_of_its_run() -> None:
    """A retry chain that outlived the run's end opens nothing again."""
    first = make_work()
    end = ended(first, "a", JobState.SUCCEEDED, Outcome.SUCCEEDED)
    stale = ended(make_work(n=2, seq=2), "b", JobState.RETRYING, Outcome.FAILED, due_at=NOW + 99)
    assert merge(None, [end, stale]) == merge(None, [stale, end])
    assert merge(None, [stale, end])["state"] == "succeeded"
    assert "due_at" not in merge(None, [stale, end])


def test_a_start_that_overtook_the_end_before_it_changes_nothing() -> None:
    """The next attempt's start and the failed attempt's end give one document in both orders."""
    failed = ended(make_work(), "a", JobState.RETRYING, Outcome.FAILED, due_at=NOW + 9, error=ERRORS[0])
    start = Started(**about(make_work(n=2, seq=2)), n=2, execution="b", started_at=NOW + 9, worker="w")
    document = merge(None, [failed, start])
    assert document == merge(None, [start, failed])
    assert document["state"] == "running"
    assert document["attempts"][0]["error"] == {"type": "ValueError", "message": "no"}


def test_a_new_run_clears_what_the_last_one_left() -> None:
    """No end, result or error of an earlier run; its attempts stay."""
    work = make_work()
    again = new_run(work)
    rerun = Rerun(**about(again), at=NOW + 20, by="replay")
    for end in (
        ended(work, "a", JobState.SUCCEEDED, Outcome.SUCCEEDED, result=1),
        ended(work, "a", JobState.FAILED, Outcome.FAILED, error=ERRORS[0]),
    ):
        document = merge(None, [end, rerun])
        assert document == merge(None, [rerun, end])
        assert (document["state"], document["run"], document["finished_at"]) == ("queued", 2, None)
        assert not {"result", "error", "due_at"} & document.keys()
        assert len(document["attempts"]) == 1


def test_a_result_of_none_is_a_result() -> None:
    """Whoever reads a succeeded job finds the field."""
    document = merge(None, [ended(make_work(), "a", JobState.SUCCEEDED, Outcome.SUCCEEDED)])
    assert "result" in document
    assert document["result"] is None


def test_content_comes_from_the_acceptance_alone() -> None:
    """An end that overtook it makes a document without payload, which the acceptance then completes."""
    work = make_work(tags=("t",))
    end = ended(work, "a", JobState.SUCCEEDED, Outcome.SUCCEEDED)
    early = merge(None, [end])
    assert "payload" not in early
    accepted = Accepted(**about(work), key_id="k", payload={"$state": {"kind": "ended"}}, tags=("t",), timeout=4.0)
    late = merge(early, [accepted])
    assert (late["payload"], late["tags"], late["timeout"], late["key_id"]) == (
        {"$state": {"kind": "ended"}},
        ["t"],
        4.0,
        "k",
    )
    assert late["state"] == "succeeded"


def test_a_second_acceptance_leaves_the_first_content() -> None:
    """The same id again, with another payload: the first content stands."""
    work = make_work()
    first = Accepted(**about(work), key_id="k", payload={"a": 1})
    second = Accepted(**about(work), key_id="other", payload={"a": 2}, tags=("new",))
    assert merge(merge(None, [first]), [second]) == merge(None, [first])


def test_a_refusal_is_a_document_of_its_own() -> None:
    """State rejected, final from its first moment, the code as its error; merging it again changes nothing."""
    event = Refused(
        app="shop", id="r1", key_id="k", type="email.send", at=NOW, code="invalid_field", message="id: too long"
    )
    document = merge(None, [event])
    assert document["_id"] == document_id("shop", "r1") == "shop:r1"
    assert (document["state"], document["accepted_at"], document["finished_at"]) == ("rejected", NOW, NOW)
    assert document["error"] == {"type": "invalid_field", "message": "id: too long"}
    assert document["attempts"] == []
    assert "payload" not in document
    assert merge(document, [event, event]) == document


def test_figures_forget_what_is_corrected() -> None:
    """An execution whose end says another attempt than its start did leaves no retry behind, in one batch or two."""
    start = Started(**about(make_work(n=2, seq=2)), n=2, execution="a", started_at=NOW, worker="w")
    end = ended(make_work(), "a", JobState.SUCCEEDED, Outcome.SUCCEEDED)
    assert merge(None, [start])["retries"] == 1
    assert merge(merge(None, [start]), [end]) == merge(None, [start, end])
    assert "retries" not in merge(None, [start, end])


def test_an_event_that_claims_a_refusal_takes_no_job_s_place() -> None:
    """Only a refusal's own document makes way; a job stays whatever state is said of it."""
    odd = Moved(**about(make_work()), at=NOW, state=JobState.REJECTED)
    start = Started(**about(make_work()), n=1, execution="a", started_at=NOW, worker="w")
    document = merge(None, [start, odd])
    assert merge(document, [start]) == document


@pytest.mark.parametrize("state", sorted(FINAL - {JobState.REJECTED, JobState.DUPLICATE, JobState.EXPIRED}))
def test_a_document_has_the_fields_of_the_contract(state: JobState) -> None:
    """Everything that operators' queries rely on is there, whatever the end."""
    work = make_work()
    accepted = Accepted(**about(work), key_id="k", payload={})
    document = merge(None, [accepted, ended(work, "a", state, Outcome.FAILED)])
    names = "_id app id run type lane priority state key_id payload tags attempts accepted_at finished_at"
    assert set(names.split()) <= document.keys()
    assert set(document["attempts"][0]) == {"run", "n", "execution", "started_at", "finished_at", "outcome", "worker"}
