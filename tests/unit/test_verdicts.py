"""What intake publishes for a message, as plain values that another process may have made."""

from __future__ import annotations

import json
import pickle
from typing import Any

import pytest

from dispatcher.core import verdicts
from dispatcher.core.admission import Rules, Submission
from dispatcher.core.refusals import Code, Refusal
from dispatcher.core.verdicts import CUT_BYTES, Case, Job, Refused, judge
from dispatcher.services import intake_child
from schemas import Accepted, EventBatch, WorkMessage
from schemas.events import pack
from tests.unit.samples import JOB_TYPE, KEY, NOW, RECORD, RULES

PARENT = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"


def case(body: bytes, refusal: Refusal | None = None, rules: Rules = RULES) -> Case:
    """A message with a valid key."""
    return Case(Submission(JOB_TYPE, body, KEY, PARENT), RECORD, rules, NOW, 7, refusal)


def test_a_good_message_is_a_job_encoded() -> None:
    """The work message and the event, as they are published."""
    job = judge(case(b'{"id":"one","payload":{"a":1},"lane":"bulk","priority":"high"}'))
    assert isinstance(job, Job)
    work = WorkMessage.decode(job.body)
    assert (work.id, work.lane, work.priority) == (job.id, job.lane, job.priority) == ("one", "bulk", "high")
    assert job.headers == work.headers == {"traceparent": PARENT}
    (body,) = pack([job.event])
    (event,) = EventBatch.decode(body).events
    assert isinstance(event, Accepted)
    assert (event.id, event.payload, event.key_id) == ("one", {"a": 1}, RECORD.id)


def test_a_refusal_shows_the_body_without_keys() -> None:
    """One that admission found, and one that was there before."""
    body = json.dumps({"nonsense": KEY}).encode()
    for given, code in ((None, Code.UNKNOWN_FIELD), (verdicts.crashed("why"), Code.CRASHED_INTAKE)):
        shown = judge(case(body, given))
        assert isinstance(shown, Refused)
        assert (shown.refusal.code, shown.size) == (code, None)
        assert KEY.encode() not in shown.body
        assert b"nonsense" in shown.body


def test_a_body_over_the_limit_is_cut_after_keys_were_taken_out() -> None:
    """A key that the cut would halve is taken out whole."""
    rules = Rules(RULES.lanes, RULES.types, 100_000)
    body = b"x" * (CUT_BYTES - 20) + KEY.encode() + b"y" * 100_000
    shown = judge(case(body, rules=rules))
    assert isinstance(shown, Refused)
    assert (shown.refusal.code, shown.size, len(shown.body)) == (Code.TOO_LARGE, len(body), CUT_BYTES)
    assert KEY.encode()[:15] not in shown.body


@pytest.mark.parametrize("body", [b'{"id":"one"}', b"[", b"\xff"])
def test_a_child_says_what_intake_would_say(body: bytes) -> None:
    """The case and its verdict survive the way there and back."""
    mine = judge(case(body))
    theirs, fault = pickle.loads(intake_child.answering()(pickle.dumps(case(body))))
    assert fault == ""
    assert type(theirs) is type(mine)
    if isinstance(mine, Refused):
        assert (theirs.body, str(theirs.refusal)) == (mine.body, str(mine.refusal))
        assert theirs.refusal.code is mine.refusal.code
    else:
        assert theirs == mine


def test_a_fault_of_ours_in_a_child_refuses_that_message(monkeypatch: pytest.MonkeyPatch) -> None:
    """Named by its class alone: its words may hold the input."""

    def broken(*_: Any) -> Any:
        raise ZeroDivisionError(KEY)

    monkeypatch.setattr(verdicts, "admit", broken)
    shown, fault = pickle.loads(intake_child.answering()(pickle.dumps(case(b"{}"))))
    assert (shown.refusal.code, shown.body, fault) == (Code.CRASHED_INTAKE, b"{}", "ZeroDivisionError")
