"""The sentences of refusals, for applications in any language."""

from __future__ import annotations

from typing import Any

import pytest

from tests.unit.samples import refused


@pytest.mark.parametrize(
    ("body", "sentence"),
    [
        ({"payload": [1]}, "payload: Input should be a JSON object"),
        ({"retry": 3}, "retry: Input should be a JSON object"),
        ({"tags": "a"}, "tags: Input should be a JSON array"),
        ({"retry": {"on": "a"}}, "retry.on: Input should be a JSON array"),
        ({"tags": ["a"] * 11}, "tags: Array should have at most 10 items after validation, not 11"),
        ({"run_at": "soon"}, "run_at: must be an RFC 3339 time with its offset, such as 2030-01-31T18:00:00+01:00"),
    ],
    ids=ascii,
)
def test_a_sentence_needs_no_python(body: dict[str, Any], sentence: str) -> None:
    """No tuples, no dictionaries, no class of ours."""
    refusal = refused(body)
    assert refusal is not None
    assert refusal.sentence == sentence
