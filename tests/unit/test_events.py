"""Batches of events: few messages, none too large, read back as they were written."""

from __future__ import annotations

import itertools
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from schemas import Accepted, Ended, ErrorInfo, Event, EventBatch, JobState, Moved, Outcome, Refused, Rerun, Started
from schemas.events import MAX_BATCH_BYTES, MAX_BATCH_EVENTS, about, encode_batches
from tests.unit.samples import NOW, make_work
from tests.unit.test_admission_fuzz import STORABLE

STEP: dict[str, Any] = {"n": 1, "execution": "e", "started_at": NOW, "worker": "w"}
OF_EACH_KIND: list[Event] = [
    Accepted(**about(make_work()), key_id="k", payload={"kind": "moved", "v": 1}),
    Started(**about(make_work(run=2, seq=3)), **STEP),
    Ended(
        **about(make_work()),
        **STEP,
        finished_at=NOW,
        outcome=Outcome.FAILED,
        state=JobState.FAILED,
        error=ErrorInfo(type="E"),
    ),
    Moved(**about(make_work()), at=NOW, state=JobState.SCHEDULED, due_at=NOW + 5),
    Rerun(**about(make_work(run=2)), at=NOW, by="retry"),
    Refused(app="shop", id="r", key_id="k", type="", at=NOW, code="bad_type", message="…"),
]


def sized(size: int) -> Event:
    """An event of about this many bytes."""
    return Accepted(**about(make_work()), key_id="k", payload={"a": "x" * size})


def read(bodies: list[bytes]) -> list[Event]:
    """All events of some bodies."""
    return [event for body in bodies for event in EventBatch.decode(body).events]


def test_every_kind_is_read_back_as_it_was_written() -> None:
    """In one batch, in their order."""
    bodies = list(encode_batches(OF_EACH_KIND))
    assert len(bodies) == 1
    assert read(bodies) == OF_EACH_KIND


@given(STORABLE)
def test_results_come_through_exactly(result: Any) -> None:
    """repr tells -0.0 from 0.0 and 1 from True."""
    event = Ended(
        **about(make_work()),
        **STEP,
        finished_at=NOW,
        outcome=Outcome.SUCCEEDED,
        state=JobState.SUCCEEDED,
        result=result,
    )
    (back,) = read(list(encode_batches([event])))
    assert isinstance(back, Ended)
    assert repr(back.result) == repr(result)


@given(st.lists(st.integers(0, 400_000), max_size=12))
def test_batches_keep_order_and_size(sizes: list[int]) -> None:
    """No batch beyond the limit but for one event that alone is; no two neighbours that would have fitted into one."""
    events = [sized(size) for size in sizes]
    bodies = list(encode_batches(events))
    assert read(bodies) == events
    for body, following in itertools.pairwise(bodies):
        assert len(body) <= MAX_BATCH_BYTES + 1_000
        first = EventBatch.decode(following).events[0]
        assert len(body) + len(first.model_dump_json()) > MAX_BATCH_BYTES - 1_000


def test_a_batch_is_closed_at_its_number_of_events() -> None:
    """However small they are; nothing gives no batch at all."""
    bodies = list(encode_batches([sized(0)] * (2 * MAX_BATCH_EVENTS + 1)))
    assert [len(EventBatch.decode(body).events) for body in bodies] == [MAX_BATCH_EVENTS, MAX_BATCH_EVENTS, 1]
    assert list(encode_batches([])) == []


def test_an_event_larger_than_a_batch_travels_alone() -> None:
    """It is neither cut nor lost."""
    events = [sized(0), sized(2 * MAX_BATCH_BYTES), sized(0)]
    bodies = list(encode_batches(events))
    assert [len(EventBatch.decode(body).events) for body in bodies] == [1, 1, 1]
    assert read(bodies) == events


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"{}",
        b"[]",
        b'{"v":2,"events":[]}',
        b'{"v":1,"events":[{"kind":"other"}]}',
        b'{"v":1,"events":[{}]}',
        b"\xff",
    ],
)
def test_what_is_no_batch_is_a_validation_error(body: bytes) -> None:
    """A newer version and an unknown kind are noticed, not guessed."""
    with pytest.raises(ValidationError):
        EventBatch.decode(body)
