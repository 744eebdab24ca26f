"""A handler that returns a hundred megabytes: refused at once, without as much memory again, and in a child there."""

from __future__ import annotations

import secrets
import tracemalloc
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic_core import to_json

from consumers.executor import Executor
from consumers.failures import clean
from consumers.results import ResultError, storable
from dispatcher.core import keys
from dispatcher.edges.children import Child
from schemas import Outcome
from tests.unit.test_executor import in_child

LIMIT = 262_144
#: Bytes that refusing may take, however large the result is.
MEMORY = 4 << 20

HUGE: dict[str, Callable[[], Any]] = {
    "text": lambda: "x" * 100_000_000,
    "bytes": lambda: b"\xff" * 100_000_000,
    "nested": lambda: {"a": [{"b": ("x" * 100_000_000,)}]},
    "many": lambda: [1] * 50_000_000,
    "parts": lambda: ["x" * 1_000] * 100_000,
    "name": lambda: {"x" * 100_000_000: 1},
    "within": lambda: {"a": object(), "b": ["x" * 100_000_000]},
    "beside": lambda: [*(["x"] * 30_000_000), object()],
    "deep": lambda: nested(200, "x" * 100_000_000),
}


def nested(depth: int, value: Any) -> Any:
    """A value in a list in a list."""
    for _ in range(depth):
        value = [value]
    return value


@pytest.fixture
def traced() -> Iterator[None]:
    """Count what Python allocates."""
    tracemalloc.start()
    yield
    tracemalloc.stop()


@pytest.mark.usefixtures("traced")
@pytest.mark.parametrize("name", HUGE)
def test_a_huge_result_is_refused_without_being_written(name: str) -> None:
    """The sentence names the limit and the setting, and says what to do; the memory does not grow for it."""
    result = HUGE[name]()
    before, _ = tracemalloc.get_traced_memory()
    tracemalloc.reset_peak()
    with pytest.raises(ResultError, match=rf"bytes of JSON, at most {LIMIT} .*worker\.max_result_bytes.*reference"):
        storable(result, LIMIT)
    _, peak = tracemalloc.get_traced_memory()
    assert peak - before < MEMORY


async def test_a_large_result_is_refused_in_the_child(executor: Executor, monkeypatch: pytest.MonkeyPatch) -> None:
    """It never comes to the worker, and the child serves on."""
    answers: list[int] = []
    real = Child.call

    async def listening(self: Child, request: bytes, *more: Any) -> bytes:
        answer = await real(self, request, *more)
        answers.append(len(answer))
        return answer

    monkeypatch.setattr(Child, "call", listening)
    _, first = await in_child(executor, "pid", {})
    execution, result = await in_child(executor, "steer", {"how": "large"})
    assert (execution.outcome, execution.retryable, result) == (Outcome.FAILED, False, None)
    assert execution.error is not None
    assert "at most 1000 are recorded (worker.max_result_bytes)" in execution.error.message
    assert max(answers) < 1_000
    assert (await in_child(executor, "pid", {}))[1] == first


@given(
    st.recursive(
        st.none() | st.booleans() | st.floats() | st.integers() | st.text() | st.binary(max_size=4),
        lambda inner: (
            st.lists(inner, max_size=4)
            | st.tuples(inner, inner)
            | st.dictionaries(st.text(max_size=3) | st.integers() | st.tuples(st.text(max_size=3)), inner, max_size=4)
        ),
        max_leaves=12,
    )
)
def test_what_is_within_the_limit_is_never_taken_for_larger(result: Any) -> None:
    """The look that comes before the writing counts no more bytes than are written."""
    try:
        size = len(to_json(result))
    except ValueError:
        return
    assert "bytes of JSON" not in refusal(result, size)


def refusal(result: Any, max_bytes: int) -> str:
    """Why a result is refused; nothing where it is not."""
    try:
        storable(result, max_bytes)
    except ResultError as error:
        return str(error)
    return ""


@pytest.mark.usefixtures("traced")
def test_a_huge_error_is_cut_before_it_is_searched() -> None:
    """An exception whose text has a hundred megabytes: no copies of it, and no key in what is kept."""
    key, _ = keys.generate("test", secrets.choice)
    text = f"{key} {'x' * 100_000_000} {key}"
    tracemalloc.reset_peak()
    before, _ = tracemalloc.get_traced_memory()
    kept = clean(text, 2_000)
    _, peak = tracemalloc.get_traced_memory()
    assert peak - before < 8 * MEMORY
    assert len(kept) <= 2_000
    assert kept.startswith("[")
    assert kept.endswith("]")
    assert key not in kept
