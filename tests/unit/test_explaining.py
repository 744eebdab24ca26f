"""Explanations: each state has its sentences, and only commands that would work are named."""

from __future__ import annotations

import re
from typing import Any

import pytest

from dispatcher.core.advice import REFUSALS
from dispatcher.core.explaining import explain
from dispatcher.core.lifecycle import PARKED, RERUNNABLE, STATES
from schemas import JobState
from tests.acceptance.readme import ROOT
from tests.unit.samples import NOW


def attempt(n: int, outcome: str | None, run: int = 1) -> dict[str, Any]:
    """One entry of a document's attempts."""
    finished = None if outcome is None else NOW + 2_000 * n
    times = {"started_at": NOW + 1_000 * n, "finished_at": finished}
    return {"run": run, "n": n, "execution": f"e{run}.{n}", "outcome": outcome, "worker": "host-1", **times}


def make_doc(state: str | None, **fields: Any) -> dict[str, Any]:
    """A job's document in a state."""
    doc = {"_id": "shop:order-1", "app": "shop", "id": "order-1", "type": "email.send", "lane": "default"}
    doc |= {"priority": "normal", "run": 1, "seq": 1, "accepted_at": NOW, "finished_at": NOW + 9_000, "attempts": []}
    return doc | {"state": state} | fields


def said(doc: dict[str, Any], after_ms: int = 5_000) -> str:
    """All sentences in one text."""
    return " ".join(explain(doc, NOW + after_ms).sentences)


ERROR = {"type": "ConnectionError", "message": "the other\x1b side\nhung up"}


@pytest.mark.parametrize(
    ("doc", "sentences"),
    [
        (make_doc("queued"), ["accepted 5.0 s ago", "work.v1.default.normal", "moved on by: worker"]),
        (
            make_doc("running", attempts=[attempt(1, None)], timeout=30.0),
            ["Attempt 1 has run for 4.0 s on worker host-1", "timeout is 30 s"],
        ),
        (make_doc("running"), ["has not reached history yet"]),
        (
            make_doc(
                "retrying",
                attempts=[attempt(1, "failed"), attempt(2, "failed")],
                due_at=NOW + 8_000,
                error=ERROR,
                retry={"max_attempts": 3},
            ),
            ["ConnectionError: the other side hung up", "in 3.0 s", "2 attempts of this run", "1 attempt at most"],
        ),
        (
            make_doc("retrying", attempts=[attempt(1, "failed")], due_at=NOW - 60_000),
            ["1 attempt of this run", "stands in its handler", "65 s ago", "waits for a worker"],
        ),
        (make_doc("scheduled", due_at=NOW + 3_600_000), ["in 60 min"]),
        (
            make_doc("scheduled", due_at=NOW + 8_000, error={"type": "no_handler", "message": "a worker had none"}),
            ["Before that: no_handler", "needs a handler for each type", "in 3.0 s"],
        ),
        (make_doc("waiting"), ["waits for the jobs it depends on"]),
        (make_doc("buffered"), ["a member of a group"]),
        (
            make_doc("succeeded", attempts=[attempt(1, "succeeded")]),
            ["handler returned", "ended at 2027-01-15T08:00:09Z"],
        ),
        (
            make_doc("failed", attempts=[attempt(1, "failed")], error=ERROR),
            ["parked.v1.default", "ConnectionError", "no other follows, since"],
        ),
        (make_doc("failed", error={"type": "no_handler", "message": "none"}), ["a handler for email.send"]),
        (make_doc("timed_out", attempts=[attempt(1, "timed_out")]), ["parked.v1.default"]),
        (make_doc("cancelled", error={"type": "Cancel", "message": "why not"}), ["The reason: Cancel: why not"]),
        (make_doc("expired"), ["not started within its expires"]),
        (make_doc("duplicate", duplicate_of="invoice-7"), ["Job invoice-7 had its unique key then"]),
        (
            make_doc("rejected", lane=None, priority=None, error={"type": "unknown_lane", "message": "no such lane"}),
            ["refused it", "unknown_lane: no such lane", "use a lane of the configuration"],
        ),
        (make_doc("rejected", error={"type": "a_later_code", "message": "new"}), ["a_later_code: new"]),
        (make_doc(None), ["not yet of its acceptance"]),
    ],
    ids=lambda value: str(value["state"]) if isinstance(value, dict) else "",
)
def test_a_state_is_explained(doc: dict[str, Any], sentences: list[str]) -> None:
    """Where it is, why, and what comes next; on one line each, without control characters."""
    text = said(doc)
    assert [part for part in sentences if part not in text] == [], text
    assert text.isprintable()


@pytest.mark.parametrize("state", JobState)
def test_only_commands_that_work_are_named(state: JobState) -> None:
    """Replay for parked jobs, retry for those that can run again, watch for those that have not ended."""
    commands = " ".join(command for command, _ in explain(make_doc(str(state)), NOW).commands)
    assert ("dead replay" in commands) == (state in PARKED)
    assert ("jobs retry" in commands) == (state in RERUNNABLE)
    assert ("watch" in commands) == (JobState.CANCELLED in STATES[state].to)
    assert "jobs show shop:order-1" in commands


def test_attempts_of_earlier_runs_do_not_count() -> None:
    """A second run begins anew, and says so."""
    attempts = [attempt(1, "failed"), attempt(2, "failed"), attempt(1, "failed", run=2)]
    text = said(make_doc("retrying", run=2, attempts=attempts, retry={"max_attempts": 5}))
    assert "(run 2)" in text
    assert "1 attempt of this run ended; its message allows 5, so 4 attempts" in text


def test_executions_that_never_ended_are_told() -> None:
    """A worker died holding it; the one that runs now is not meant."""
    lost = [attempt(1, None), attempt(1, "succeeded")]
    assert "1 execution never told an end: its worker died, was cut off, or gave it back." in said(
        make_doc("succeeded", attempts=lost)
    )
    assert "never told" not in said(make_doc("running", attempts=[attempt(1, None)]))


def test_advice_is_that_of_the_docs() -> None:
    """The last column of docs/refusals.md, word for word."""
    rows = re.findall(r"^\| `(\w+)` \| .* \| (.*) \|$", (ROOT / "docs" / "refusals.md").read_text(), re.MULTILINE)
    assert {str(code): advice for code, advice in REFUSALS.items()} == dict(rows)
