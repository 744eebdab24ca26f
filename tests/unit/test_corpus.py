"""The kept inputs of fuzzing, each run anew: what stands first in a file's name is what must become of it."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dev import fuzz
from dev.fuzz_inputs import INPUTS, corpus
from dev.fuzz_targets import KEY, PLACEHOLDER, TARGETS, Broken, Case
from dispatcher.core import admission, history, keys
from dispatcher.core.refusals import Code, Refusal
from schemas import EventBatch

FILES = [(target, path) for target in sorted(TARGETS) for path in corpus(target)]
#: Most bytes of a kept file: whoever clones the project gets them all.
LARGEST = 110_000


@pytest.mark.parametrize(("target", "path"), FILES, ids=[f"{target}-{path.name}"[:80] for target, path in FILES])
def test_what_became_of_an_input_becomes_of_it_again(target: str, path: Path) -> None:
    """Nothing but the promised errors, and the outcome that the name says; a new find has no outcome yet."""
    became = fuzz.tried(target, path.read_bytes())
    outcome, _, what = path.name.partition(".")
    assert what, "a name is an outcome and, after a dot, what the input is"
    assert outcome in (became, "found")


def test_the_corpus_is_small_and_holds_no_key() -> None:
    """Files are small; where a key belongs stands its placeholder; every refusal of a message has an example."""
    assert len(FILES) > 100
    for _, path in FILES:
        data = path.read_bytes()
        assert len(data) <= LARGEST, path.name
        assert KEY.encode() not in data, path.name
    codes = {path.name.partition(".")[0] for target, path in FILES if target == "intake"}
    of_services = {Code.RATE_LIMITED, Code.CRASHED_INTAKE, Code.CONFLICTING_FIELDS}
    assert codes - {"found"} == {"admitted", *map(str, set(Code) - of_services)}


@settings(max_examples=150)
@given(INPUTS["intake"]())
def test_intake_admits_or_refuses_whatever_comes(file: bytes) -> None:
    """Made anew each time, and files of the corpus with some damage."""
    TARGETS["intake"](file)


@settings(max_examples=150)
@given(INPUTS["events"]())
def test_events_are_recorded_or_refused_whatever_comes(file: bytes) -> None:
    """Made anew each time, and files of the corpus with some damage."""
    TARGETS["events"](file)


@given(st.binary(max_size=20), st.one_of(st.none(), st.text(max_size=5), st.binary(max_size=5), st.integers()))
def test_a_case_is_read_back_as_it_was_written(body: bytes, header: object) -> None:
    """Whatever a header holds; a placeholder becomes the key."""
    case = Case(body, routing_key="\ud800", api_key=header, tracestate=PLACEHOLDER)
    assert Case.decode(case.encode()) == case
    assert case.submission().tracestate == KEY


# ---- the targets can fail: each promise is broken once


def first_of(target: str, name: str) -> bytes:
    """A kept file by its name."""
    return next(path.read_bytes() for kind, path in FILES if (kind, path.name) == (target, name))


def test_an_error_of_ours_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    """Anything but a refusal that leaves intake's decision is a find."""

    def broken(body: bytes) -> dict[str, object]:
        return dict(json.loads(body))

    monkeypatch.setattr(admission, "parse_body", broken)
    with pytest.raises(ValueError):
        TARGETS["intake"](first_of("intake", "invalid_json.empty-body"))


def test_an_echo_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    """A sentence that repeats a word of the input, or a piece of the key."""

    def echo(unknown: str, known: tuple[str, ...]) -> str:
        return unknown

    monkeypatch.setattr(admission, "_nearest", echo)
    for name in ("unknown-field-that-is-a-secret", "key-as-unknown-field"):
        with pytest.raises(Broken):
            TARGETS["intake"](first_of("intake", f"unknown_field.{name}"))


def test_a_key_that_is_left_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    """In what is kept of a refused message, and in a job that is admitted."""
    file = first_of("intake", "invalid_field.key-in-the-payload")
    with monkeypatch.context() as patch:
        patch.setattr(keys, "redact", bytes)
        with pytest.raises(Broken, match="redacted"):
            TARGETS["intake"](file)
    monkeypatch.setattr(keys, "holds_key", lambda data: False)
    with pytest.raises(Broken, match="admitted"):
        TARGETS["intake"](file)


def test_a_document_that_depends_on_the_number_of_copies_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    """Merging that counts instead of placing."""

    def counts(doc: history.Document) -> None:
        doc["retries"] = doc.get("retries", 0) + 1

    monkeypatch.setattr(history, "_derive", counts)
    with pytest.raises(Broken):
        TARGETS["events"](first_of("events", "recorded.two-ends-of-a-run"))


def test_a_document_that_cannot_be_stored_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    """A place beyond 64 bits that decoding let pass."""
    body = first_of("events", "recorded.two-waits-for-one-step")
    batch = EventBatch.decode(body)
    huge = tuple(event.model_copy(update={"seq": 2**63}) for event in batch.events)
    monkeypatch.setattr(EventBatch, "decode", lambda body: batch.model_copy(update={"events": huge}))
    with pytest.raises(Broken, match="cannot be stored"):
        TARGETS["events"](body)


def test_a_find_is_kept_as_small_as_it_can_be(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """The command reports it, and the file makes the target fail again."""

    def target(file: bytes) -> str:
        if b"events" in file:
            raise Refusal(Code.INVALID_JSON, "not meant to leave")
        return "recorded"

    monkeypatch.setitem(TARGETS, "events", target)
    monkeypatch.setattr(fuzz, "CORPUS", tmp_path)
    (tmp_path / "events").mkdir()
    assert not fuzz.fuzz("events", 60, 1)
    (kept,) = (tmp_path / "events").iterdir()
    assert kept.name.startswith("found.")
    assert b"events" in kept.read_bytes()
    assert len(kept.read_bytes()) < 40
    with pytest.raises(Refusal):
        fuzz.tried("events", kept.read_bytes())
