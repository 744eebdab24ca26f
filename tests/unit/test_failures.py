"""Exceptions as history keeps them: trimmed, storable, without keys."""

from __future__ import annotations

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from consumers.failures import MAX_MESSAGE, MAX_TRACEBACK, clean, describe
from tests.unit.samples import KEY, make_key

SECRET = KEY.split("_")[3]


def raised(error: BaseException) -> BaseException:
    """The exception with a traceback."""
    try:
        raise error
    except BaseException as caught:
        return caught


def test_an_exception_is_its_name_message_and_traceback() -> None:
    """The class's plain name, and where it came from."""
    info = describe(raised(ValueError("no such order")))
    assert (info.type, info.message) == ("ValueError", "no such order")
    assert info.traceback is not None
    assert "test_failures.py" in info.traceback
    assert info.traceback.rstrip().endswith("ValueError: no such order")


class Unreadable(Exception):
    """Its message cannot be read."""

    def __str__(self) -> str:
        raise RuntimeError("secret reason")


class NoText(Exception):
    """Its message is no text."""

    def __str__(self) -> str:
        return 5  # type: ignore[return-value]  # noqa: PLE0307


@pytest.mark.parametrize("error", [Unreadable(), NoText()])
def test_an_exception_that_cannot_be_printed_is_described_all_the_same(error: Exception) -> None:
    """With a sentence in the place of its message."""
    info = describe(raised(error))
    assert info.type == type(error).__name__
    assert "cannot be read" in info.message
    assert info.traceback is not None


@pytest.mark.parametrize("text", ["half \ud83d", "\udfff", "a\ud800b\udc00"])
def test_lone_surrogates_go(text: str) -> None:
    """MongoDB stores UTF-8 alone; the text around them stays."""
    info = describe(raised(ValueError(text)))
    info.model_dump_json().encode()
    assert "\ud83d" not in info.message
    assert clean("whole 😀 é 漢", 100) == "whole 😀 é 漢"


@given(st.text(st.characters(), max_size=80), st.integers(10, 60))
@example("x" * 61, 60)
@example("\ud800" * 200, 60)
@example("漢" * 200, 61)
def test_a_cleaned_text_is_utf8_and_no_longer_than_its_limit(text: str, limit: int) -> None:
    """At most that many characters, of which the middle goes; a text that fits stays."""
    cleaned = clean(text, limit)
    cleaned.encode()
    assert len(cleaned) <= limit
    if len(text) <= limit and not any("\ud800" <= c <= "\udfff" for c in text):
        assert cleaned == text
    elif len(text) > limit:
        assert cleaned[:3] == clean(text[:3], 3)
        assert " … " in cleaned


def test_a_long_message_and_traceback_keep_their_ends() -> None:
    """The last line of a traceback says the most."""
    info = describe(raised(ValueError("begin" + "x" * 100_000 + "end")))
    assert len(info.message) <= MAX_MESSAGE
    assert info.message.startswith("begin")
    assert info.message.endswith("end")
    assert info.traceback is not None
    assert len(info.traceback) <= MAX_TRACEBACK


def pieces(secret: str, text: str) -> list[str]:
    """Runs of eight characters of a secret that stand in a text."""
    return [secret[i : i + 8] for i in range(len(secret) - 7) if secret[i : i + 8] in text]


def test_a_key_in_a_message_is_taken_out() -> None:
    """Of the message and of the traceback, which repeats it."""
    info = describe(raised(ValueError(f"login with {KEY} failed")))
    assert info.message == "login with [redacted key] failed"
    assert info.traceback is not None
    assert not pieces(SECRET, info.message + info.traceback)


@given(st.integers(0, 10**6), st.integers(0, 400), st.integers(0, 400))
@example(0, 60, 60)
@example(0, 30, 200)
def test_no_piece_of_a_key_survives_where_a_text_is_cut(seed: int, before: int, after: int) -> None:
    """Keys are taken out before the middle goes, or half of a secret would no longer look like one."""
    key, _ = make_key(seed)
    cleaned = clean("x" * before + " " + key + " " + "y" * after, 120)
    assert not pieces(key.split("_")[3], cleaned)


def test_a_long_class_name_is_trimmed() -> None:
    """A generated class may have any name."""
    error = type("E" * 1_000, (Exception,), {})("x")
    assert len(describe(raised(error)).type) <= 200
