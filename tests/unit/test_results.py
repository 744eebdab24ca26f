"""What handlers return, made fit for history."""

from __future__ import annotations

import datetime as dt
import decimal
import enum
import itertools
import uuid
from dataclasses import dataclass, field
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import BaseModel

from consumers.results import ResultError, storable
from dispatcher.core.parsing import unstorable
from tests.unit.test_admission_fuzz import STORABLE


class Receipt(BaseModel):
    """A model as a result."""

    to: str
    at: dt.datetime


@dataclass
class Point:
    """A dataclass as a result."""

    x: int


class Colour(enum.Enum):
    """An enumeration as a result."""

    RED = "red"


AT = dt.datetime(2030, 1, 2, 3, 4, 5, tzinfo=dt.UTC)


@pytest.mark.parametrize(
    ("result", "value"),
    [
        (None, None),
        (0, 0),
        ("", ""),
        ([], []),
        ((1, 2), [1, 2]),
        ({1: "a"}, {"1": "a"}),
        ({"a": Point(1)}, {"a": {"x": 1}}),
        (Receipt(to="é", at=AT), {"to": "é", "at": "2030-01-02T03:04:05Z"}),
        (Colour.RED, "red"),
        (uuid.UUID(int=1), "00000000-0000-0000-0000-000000000001"),
        (decimal.Decimal("1.50"), "1.50"),
        (b"bytes", "bytes"),
        ("text\0NUL", "text\0NUL"),
        (2**63 - 1, 2**63 - 1),
    ],
    ids=ascii,
)
def test_what_a_handler_may_return(result: Any, value: Any) -> None:
    """JSON values as they are, and whatever pydantic can turn into them."""
    assert storable(result, 1_000) == value


class Endless:
    """Nothing that JSON knows."""


@dataclass
class Surly:
    """A dataclass whose field is not there."""

    field: int = field(init=False)

    def __getattribute__(self, name: str) -> Any:
        if name == "field":
            raise KeyError(name)
        return super().__getattribute__(name)


def chain(depth: int) -> Any:
    """A list in a list in a list."""
    value: Any = []
    for _ in range(depth):
        value = [value]
    return value


CYCLE: list[Any] = []
CYCLE.append(CYCLE)


@pytest.mark.parametrize(
    "result",
    [
        Endless(),
        {"a": Endless()},
        (n for n in [Endless()]),
        (n for n in [1]),
        {"a": [iter([1])]},
        itertools.count(),
        KeyError,
        Surly(),
        lambda: None,
        b"\xff",
        CYCLE,
        chain(90),
        chain(5_000),
        float("inf"),
        [float("nan")],
        2**63,
        -(2**63) - 1,
        {"n": 10**30},
        "\ud800",
        {"\udc00": 1},
        {"a": ["\ud83d"]},
        {"a\0b": 1},
    ],
    ids=range(22),
)
def test_what_cannot_be_recorded_is_one_error(result: Any) -> None:
    """Whatever is wrong with it, and the sentence is text that history can hold."""
    with pytest.raises(ResultError) as caught:
        storable(result, 1_000)
    str(caught.value).encode()


def test_the_size_limit_counts_bytes_of_json_and_names_the_setting() -> None:
    """Exactly the limit is taken; one byte more says which setting and what to do instead."""
    assert storable("é" * 49, 100) == "é" * 49
    with pytest.raises(ResultError, match=r"102 bytes .* 100 .*worker\.max_result_bytes.*reference"):
        storable("é" * 50, 100)
    assert storable(None, 0) is None


@given(STORABLE)
def test_a_storable_value_stays_as_it_is(value: Any) -> None:
    """Every JSON value that MongoDB can hold comes through unchanged."""
    assert repr(storable(value, 1 << 20)) == repr(value)


@given(
    st.recursive(
        st.none() | st.floats() | st.integers() | st.text(st.characters()) | st.binary(max_size=4) | st.dates(),
        lambda inner: (
            st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3) | st.integers(), inner, max_size=3)
        ),
        max_leaves=8,
    )
)
def test_any_value_is_recorded_or_refused(result: Any) -> None:
    """What comes out can always be stored; nothing but ResultError comes out otherwise."""
    try:
        value = storable(result, 10_000)
    except ResultError as error:
        str(error).encode()
    else:
        assert unstorable(value) is None
