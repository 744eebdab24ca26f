"""No redacted value survives, at whatever depth, and everything else stays."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dispatcher.core.redaction import REDACTED, redaction

SECRET = "s3cr3t-value"
NAMES = st.sampled_from(["a", "b", "card", "number", "a.b", "password"])
PLAIN = st.sampled_from(["a", "b", "card", "number"])
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(NAMES, inner, max_size=4),
    max_leaves=20,
)


@pytest.mark.parametrize(
    ("fields", "value", "shown"),
    [
        (["password"], {"password": 1, "user": {"password": [2]}, "x": [{"password": {}}]},
         {"password": REDACTED, "user": {"password": REDACTED}, "x": [{"password": REDACTED}]}),
        (["card.number"], {"card": {"number": 1, "year": 2}, "number": 3, "x": [{"card": {"number": 4}}]},
         {"card": {"number": REDACTED, "year": 2}, "number": 3, "x": [{"card": {"number": REDACTED}}]}),
        (["cards.*.number"], {"cards": [{"number": 1, "n": 2}, 3]}, {"cards": [{"number": REDACTED, "n": 2}, 3]}),
        (["*.number"], {"a": {"number": 1}, "b": [{"number": 2}], "number": 3},
         {"a": {"number": REDACTED}, "b": [{"number": REDACTED}], "number": 3}),
        (["a.*"], {"a": {"x": 1, "y": [2]}, "b": 3}, {"a": {"x": REDACTED, "y": REDACTED}, "b": 3}),
        (["a.*"], {"a": [1, 2]}, {"a": [REDACTED, REDACTED]}),
        (["*"], {"a": 1, "b": {"c": 2}}, {"a": REDACTED, "b": REDACTED}),
        (["a.b"], {"a.b": 1, "c": {"a.b": 2, "b": 3}}, {"a.b": REDACTED, "c": {"a.b": REDACTED, "b": 3}}),
        (["a"], {"a": None}, {"a": REDACTED}),
        (["*"], ["plain", 5], [REDACTED, REDACTED]),
        (["*"], "plain", "plain"),
    ],
)  # fmt: skip
def test_what_a_field_takes_out(fields: list[str], value: Any, shown: Any) -> None:
    """At any depth; the value that was given stays as it is."""
    before = json.dumps(value)
    assert redaction(fields).of(value) == shown
    assert json.dumps(value) == before


@given(VALUES, st.lists(NAMES, min_size=1, max_size=3))
def test_no_value_under_a_redacted_name_survives(value: Any, names: list[str]) -> None:
    """Whatever stands below such a name is gone, and nothing else is."""

    def planted(item: Any, secret: bool) -> Any:
        if isinstance(item, dict):
            return {name: planted(member, secret or name in names) for name, member in item.items()}
        if isinstance(item, list):
            return [planted(member, secret) for member in item]
        return SECRET if secret else item

    fields = redaction(names)
    for found in (planted(value, False), value):
        shown = fields.of(found)
        assert SECRET not in json.dumps(shown)
        assert fields.of(shown) == shown
    assert (REDACTED in json.dumps(shown)) == (shown != value)


@given(VALUES, st.lists(PLAIN | st.just("*"), min_size=1, max_size=4))
def test_no_value_at_a_redacted_path_survives(value: Any, path: list[str]) -> None:
    """A secret put at the end of a path, through fields and elements, at any depth, is not shown."""
    leaf: Any = SECRET
    for step in reversed(path):
        leaf = [value, leaf] if step == "*" else {"other": value, step: leaf}
    field = ".".join(path)
    for found in (leaf, [value, {"deep": [leaf]}]):
        assert SECRET not in json.dumps(redaction([field]).of(found))
