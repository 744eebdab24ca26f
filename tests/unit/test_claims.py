"""Whose an id or a unique key is."""

from __future__ import annotations

from dataclasses import replace

import pytest

from dispatcher.core.claims import LEASE_MS, RECORDED_MS, Claim, Found, digest, first_of, judge_id, judge_key
from dispatcher.core.lifecycle import FINAL
from schemas import JobState

NOW = 1_800_000_000_000
MINE = Claim("shop:a", "a", "mail.send", "default", "normal", NOW, "d1")
HELD = replace(MINE, at=NOW - 100)
KEY = replace(MINE, name="shop:monthly", until="window", expires_at=NOW + 60_000)
OTHER = replace(KEY, job="b", at=NOW - 100, digest="d2")


@pytest.mark.parametrize(
    ("held", "again", "found"),
    [
        (replace(HELD, done=True), False, Found.TAKEN),
        (replace(HELD, done=True), True, Found.TAKEN),
        (HELD, False, Found.OPEN),
        # the message itself was here before, and died with its intake
        (HELD, True, Found.OURS),
        # another content: not the message that made the claim
        (replace(HELD, digest="d2"), True, Found.OPEN),
        (replace(HELD, at=NOW - LEASE_MS), False, Found.OPEN),
        (replace(HELD, at=NOW - LEASE_MS - 1), False, Found.OURS),
    ],
)
def test_a_claim_of_an_id(held: Claim, again: bool, found: Found) -> None:
    """Done is taken; not done is one's own again, or open until its lease is over."""
    assert judge_id(MINE, held, NOW, again) is found


@pytest.mark.parametrize(
    ("held", "state", "again", "found"),
    [
        (replace(OTHER, job="a"), None, False, Found.OURS),
        (replace(OTHER, expires_at=NOW), JobState.RUNNING, False, Found.OURS),
        (replace(OTHER, done=True), None, False, Found.TAKEN),
        # history knows it though nobody marked it: its intake died after the publish
        (OTHER, JobState.QUEUED, False, Found.TAKEN),
        (OTHER, None, False, Found.OPEN),
        (replace(OTHER, at=NOW - LEASE_MS - 1), None, False, Found.OURS),
        # a message without an id that comes again is another job; the first would be in history by then
        (replace(OTHER, digest="d1"), None, True, Found.OPEN),
        (replace(OTHER, digest="d1", at=NOW - RECORDED_MS - 1), None, True, Found.OURS),
        (replace(OTHER, at=NOW - RECORDED_MS - 1), None, True, Found.OPEN),
    ],
)
def test_a_claim_of_a_unique_key(held: Claim, state: JobState | None, again: bool, found: Found) -> None:
    """Taken for its window, if its job exists; a claim whose job never came to be holds nobody up for long."""
    assert judge_key(KEY, held, state, NOW, again) is found


@pytest.mark.parametrize("state", list(JobState))
@pytest.mark.parametrize("until", ["window", "success", "final"])
def test_the_end_of_a_job_gives_its_key_free_if_asked(until: str, state: JobState) -> None:
    """Never, unless it succeeded, or whatever became of it."""
    held = replace(OTHER, until=until, done=True)  # type: ignore[arg-type]
    free = state in FINAL and (until == "final" or (until == "success" and state is not JobState.SUCCEEDED))
    assert judge_key(KEY, held, state, NOW, False) is (Found.OURS if free else Found.TAKEN)


def test_messages_are_told_apart_by_type_and_body() -> None:
    """A border between the two that cannot be moved."""
    assert digest("a.b", b"c") == digest("a.b", b"c")
    assert len({digest("a.b", b"c"), digest("a.b", b"d"), digest("a", b".bc"), digest("a.bc", b"")}) == 4


def test_history_stands_for_a_claim_but_a_refusal_does_not() -> None:
    """Its job exists, so it is done."""
    document = {"_id": "shop:a", "id": "a", "type": "mail.send", "lane": "default", "priority": "low"}
    known = first_of({**document, "state": "running", "accepted_at": NOW})
    assert known == Claim("shop:a", "a", "mail.send", "default", "low", NOW, "", done=True)
    assert known is not None
    assert (known.app, known.document) == ("shop", "shop:a")
    assert first_of({**document, "state": "rejected", "accepted_at": NOW}) is None
