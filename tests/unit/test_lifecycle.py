"""The table of states: complete, with no way out of a final state but by hand, and shown in docs/states.md."""

from __future__ import annotations

from pathlib import Path

from hypothesis import given
from hypothesis import strategies as st

from dispatcher.core.lifecycle import FINAL, PARKED, RERUNNABLE, STATES, is_past, supersedes
from schemas import JobState

PAGE = Path(__file__).resolve().parents[2] / "docs" / "states.md"
STATE = st.sampled_from(JobState)
PLACES = st.tuples(STATE, st.integers(1, 3), st.integers(1, 4))


def as_markdown() -> str:
    """The table of docs/states.md."""
    rows = ["| state | final | meaning | moved on by | to |", "|---|---|---|---|---|"]
    for state, rule in STATES.items():
        to = ", ".join(f"`{other}`" for other in JobState if other in rule.to) or "—"
        final = "yes" if state in FINAL else ""
        rows.append(f"| `{state}` | {final} | {rule.meaning} | {rule.moved_by} | {to} |")
    return "\n".join(rows)


def test_the_page_shows_the_table() -> None:
    """docs/states.md and the code say the same; when this fails, put `as_markdown()` into the page."""
    page = PAGE.read_text(encoding="utf-8")
    table = "\n".join(line for line in page.splitlines() if line.startswith("|"))
    assert table == as_markdown()


def test_every_state_has_its_row_with_all_that_a_reader_needs() -> None:
    """A state that is added must say what it means and who moves a job out of it."""
    assert list(STATES) == list(JobState)
    for rule in STATES.values():
        assert rule.meaning
        assert rule.moved_by
        assert "|" not in rule.meaning + rule.moved_by


def test_the_final_states_are_the_contracts() -> None:
    """Seven of them, of which failed and timed_out are parked."""
    final = {"succeeded", "failed", "timed_out", "cancelled", "expired", "rejected", "duplicate"}
    assert {str(state) for state in FINAL} == final
    assert {str(state) for state in PARKED} == {"failed", "timed_out"}


def test_a_final_state_is_left_only_by_hand() -> None:
    """Nothing leads out of one but a new run, which begins in the queue; refusals and duplicates have none."""
    for state in FINAL:
        assert STATES[state].to <= {JobState.QUEUED}
    assert {JobState.REJECTED, JobState.DUPLICATE} == FINAL - RERUNNABLE
    assert PARKED <= RERUNNABLE


def test_every_other_state_reaches_an_end() -> None:
    """No state is a trap, and a job that runs can end in each way that an execution can end."""
    for state in set(JobState) - FINAL:
        reached = {state}
        while more := {to for at in reached - FINAL for to in STATES[at].to} - reached:
            reached |= more
        assert reached & FINAL, state
    assert {JobState.SUCCEEDED, JobState.FAILED, JobState.TIMED_OUT, JobState.CANCELLED} <= STATES[JobState.RUNNING].to


@given(PLACES, PLACES)
def test_of_two_places_at_most_one_supersedes_the_other(
    a: tuple[JobState, int, int], b: tuple[JobState, int, int]
) -> None:
    """A strict order: never both, and nothing supersedes itself, or two recorders would write for ever."""
    assert not (supersedes(*a, *b) and supersedes(*b, *a))
    assert not supersedes(*a, *a)


@given(PLACES, PLACES, PLACES)
def test_superseding_is_transitive(
    a: tuple[JobState, int, int], b: tuple[JobState, int, int], c: tuple[JobState, int, int]
) -> None:
    """What is over a state that is over a third is over the third."""
    if supersedes(*a, *b) and supersedes(*b, *c):
        assert supersedes(*a, *c)


@given(PLACES)
def test_anything_supersedes_nothing(place: tuple[JobState, int, int]) -> None:
    """The first event about a job sets its state."""
    assert supersedes(*place, None, 1, 0)


@given(STATE, STATE, st.integers(1, 9), st.integers(1, 9))
def test_a_later_run_always_supersedes(new: JobState, old: JobState, seq: int, other: int) -> None:
    """Even a final state, and whatever the steps' numbers; an earlier run never does."""
    assert supersedes(new, 2, seq, old, 1, other)
    assert not supersedes(new, 1, seq, old, 2, other)


@given(st.sampled_from(sorted(FINAL)), STATE, st.integers(1, 9), st.integers(1, 9))
def test_the_first_final_state_of_a_run_stands(final: JobState, other: JobState, seq: int, later: int) -> None:
    """Against every other state of the run, of whatever step; and it beats every state that is not final."""
    assert not supersedes(other, 1, later, final, 1, seq)
    assert supersedes(final, 1, seq, other, 1, later) is (other not in FINAL)


def test_within_a_step_waiting_comes_before_running() -> None:
    """Queued, then running, then whatever waits for the next step."""
    order = [
        (JobState.QUEUED, 1),
        (JobState.RUNNING, 1),
        (JobState.RETRYING, 2),
        (JobState.RUNNING, 2),
        (JobState.SCHEDULED, 3),
    ]
    for i, (old, old_seq) in enumerate(order):
        for j, (new, new_seq) in enumerate(order):
            assert supersedes(new, 1, new_seq, old, 1, old_seq) is (j > i)


@given(STATE, st.integers(1, 3), st.integers(1, 3), st.integers(1, 3), st.integers(1, 3))
def test_a_run_is_past_a_step_when_it_ended_went_on_or_a_later_one_began(
    state: JobState, run: int, seq: int, recorded: int, recorded_seq: int
) -> None:
    """A refusal under the job's id, which intake told the client, is the end of nothing."""
    went_on = state in FINAL or recorded_seq > seq
    expected = state != "rejected" and (recorded > run or (recorded == run and went_on))
    assert is_past(run, seq, recorded, recorded_seq, state) is expected
