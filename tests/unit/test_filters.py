"""Filters of jobs: patterns of types as MongoDB sees them, what a message's filter covers, times on a command line."""

from __future__ import annotations

import re
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dispatcher.core.filters import JobFilter, type_expression
from dispatcher.core.fingerprints import fingerprint
from dispatcher.core.keys import type_matches
from dispatcher.core.moments import moment_ms
from dispatcher.edges.mongo import query_of
from schemas import ErrorInfo
from tests.unit.samples import NOW, make_work

WORDS = st.sampled_from(["a", "b", "a-b", "a_b"])


@given(st.lists(WORDS | st.sampled_from(["*", "#"]), min_size=1, max_size=6), st.lists(WORDS, min_size=1, max_size=6))
def test_a_pattern_means_the_same_to_mongodb(pattern: list[str], words: list[str]) -> None:
    """The regular expression matches exactly the types that a topic exchange would."""
    expression = type_expression(".".join(pattern))
    assert bool(re.search(expression, ".".join(words))) == type_matches(tuple(pattern), tuple(words))


def test_a_pattern_begins_with_its_fixed_words() -> None:
    """So that the index on types is used: MongoDB reads the fixed beginning of an anchored expression."""
    assert type_expression("email.send.*").startswith(r"^email\.send\.")


def test_an_empty_filter_asks_for_nothing() -> None:
    """It is empty, and covers every message."""
    assert query_of(JobFilter()) == {}
    assert JobFilter().is_empty
    assert not JobFilter(app="shop").is_empty
    assert JobFilter().covers(make_work())


BROKEN = ErrorInfo(type="ConnectionError", message="broken")
WORK = make_work(tags=("red", "blue"), error=BROKEN)


@pytest.mark.parametrize(
    ("name", "right", "wrong"),
    [
        ("app", "shop", "other"),
        ("type", "email.send", "email"),
        ("type", "email.*", "*"),
        ("type", "#.send", "#.sent"),
        ("tag", "blue", "green"),
        ("lane", "default", "bulk"),
        ("priority", "normal", "low"),
        ("error", "ConnectionError", "ValueError"),
        ("fingerprint", fingerprint(BROKEN.model_dump()).id, "0123456789ab"),
        ("since", NOW, NOW + 1),
        ("until", NOW + 1, NOW),
    ],
)
def test_each_field_of_a_filter_is_asked(name: str, right: Any, wrong: Any) -> None:
    """A message is covered by the one value and not by the other."""
    assert JobFilter(**{name: right}).covers(WORK)
    assert not JobFilter(**{name: wrong}).covers(WORK)


def test_a_message_without_an_error_has_no_error_of_a_type() -> None:
    """Neither type nor fingerprint covers it."""
    assert not JobFilter(error="ConnectionError").covers(make_work())
    assert not JobFilter(fingerprint="0").covers(make_work())


def test_a_pattern_that_is_none_is_refused() -> None:
    """A star within a word means nothing in a topic pattern."""
    with pytest.raises(ValueError, match="one word"):
        JobFilter(type="em*il")


@pytest.mark.parametrize(
    ("text", "ms"),
    [
        ("45s", NOW - 45_000),
        ("30m", NOW - 1_800_000),
        ("2h", NOW - 7_200_000),
        ("7d", NOW - 604_800_000),
        ("2027-01-15T08:00:00Z", 1_800_000_000_000),
        ("2027-01-15T09:00:00.5+01:00", 1_800_000_000_500),
        ("999999999d", 0),
    ],
)
def test_moments(text: str, ms: int) -> None:
    """So long ago, or a time with its offset."""
    assert moment_ms(text, NOW) == ms


@pytest.mark.parametrize("text", ["", "yesterday", "2h30m", "-1h", "2027-01-15T08:00:00", "2027-01-15"])
def test_what_is_no_moment_is_told(text: str) -> None:
    """A time without an offset could mean any: it is refused like nonsense."""
    with pytest.raises(ValueError, match="how long ago"):
        moment_ms(text, NOW)
