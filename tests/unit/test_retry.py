"""The retry policy: how long, how often, for which failures, and whose word counts."""

from __future__ import annotations

import asyncio
import math
from dataclasses import fields

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dispatcher.core.retry import RetryPolicy, class_names, delay_after, error_names, may_retry, resolve
from schemas import RetrySpec

POLICIES = st.builds(
    RetryPolicy,
    max_attempts=st.integers(1, 100),
    base=st.floats(0.125, 86_400),
    factor=st.floats(1, 10),
    max_delay=st.floats(0.125, 86_400),
    jitter=st.floats(0, 1),
)
CHANCES = st.floats(0, 1, exclude_max=True)


def test_the_default_backoff_is_1_2_4_8_seconds() -> None:
    """Five attempts, doubling, without chance."""
    policy = RetryPolicy()
    assert [delay_after(policy, n, 0.9) for n in (1, 2, 3, 4)] == [1, 2, 4, 8]
    assert [may_retry(policy, n, ()) for n in (1, 4, 5, 6)] == [True, True, False, False]


def test_the_longest_delay_caps_every_other() -> None:
    """From the first that would be longer on, even where base itself is."""
    policy = RetryPolicy(base=10, factor=3, max_delay=100)
    assert [delay_after(policy, n, 0) for n in (1, 2, 3, 4, 50)] == [10, 30, 90, 100, 100]
    assert delay_after(RetryPolicy(base=500, max_delay=60), 1, 0) == 60


@pytest.mark.parametrize(
    "n", [1_023, 1_024, 1_025, 1_100, 10**6, 10**18, 10**400], ids=lambda n: f"{len(str(n))} digits, {str(n)[:5]}"
)
def test_no_attempt_number_overflows(n: int) -> None:
    """2.0 ** 1024 is no float; such a delay is the longest one."""
    assert delay_after(RetryPolicy(), n, 0.5) == 3600
    assert delay_after(RetryPolicy(base=86_400.0, factor=10.0, max_delay=86_400.0), n, 0) == 86_400


@given(POLICIES, st.integers(1, 10**6), CHANCES)
def test_every_delay_is_finite_and_within_its_bounds(policy: RetryPolicy, n: int, chance: float) -> None:
    """At least the ladder's unit; at most max_delay; jitter takes away at most its fraction, and never adds."""
    plain = delay_after(policy, n, 0)
    delay = delay_after(policy, n, chance)
    assert math.isfinite(delay)
    assert 0.125 <= delay <= plain <= policy.max_delay
    assert delay >= plain * (1 - policy.jitter) - 1e-9


@given(POLICIES, st.integers(1, 200), CHANCES)
def test_later_attempts_never_wait_less(policy: RetryPolicy, n: int, chance: float) -> None:
    """With the same luck a delay grows from attempt to attempt until it is capped."""
    assert delay_after(policy, n, chance) <= delay_after(policy, n + 1, chance)


def test_jitter_is_exact_at_its_ends() -> None:
    """1 is full jitter, 0.5 equal jitter, 0 none."""
    assert delay_after(RetryPolicy(base=8, jitter=1), 1, 0.5) == 4
    assert delay_after(RetryPolicy(base=8, jitter=0.5), 1, 0.5) == 6
    assert delay_after(RetryPolicy(base=8, jitter=1), 1, 1 - 2**-53) == 0.125


VALUES = {
    "max_attempts": st.integers(1, 100),
    "base": st.floats(0.125, 86_400),
    "factor": st.floats(1, 10),
    "max_delay": st.floats(0.125, 86_400),
    "jitter": st.floats(0, 1),
    "on": st.lists(st.sampled_from(["A", "B"]), max_size=2).map(tuple),
    "never": st.lists(st.sampled_from(["A", "B"]), max_size=2).map(tuple),
}
SPECS = st.none() | st.fixed_dictionaries({}, optional=VALUES).map(lambda given: RetrySpec(**given))


@given(SPECS, SPECS)
def test_each_field_falls_through_on_its_own(handler: RetrySpec | None, message: RetrySpec | None) -> None:
    """The message's, else the handler's, else the default's; zero and empty are values too."""
    default = RetryPolicy(max_attempts=7, base=3, factor=4, max_delay=50, jitter=0.25, on=("C",), never=("D",))
    policy = resolve(default, handler, message)
    for item in fields(RetryPolicy):
        chain = [getattr(spec, item.name) if spec else None for spec in (message, handler)]
        expected = next((value for value in chain if value is not None), getattr(default, item.name))
        assert getattr(policy, item.name) == expected


class Base(Exception):
    """A project's root exception."""


class Middle(Base):
    """One of its kinds."""


class Leaf(Middle, KeyError):
    """One with two lines of bases."""


@pytest.mark.parametrize(
    ("on", "never", "error", "again"),
    [
        ((), (), Leaf, True),
        (("Leaf",), (), Leaf, True),
        (("Base",), (), Leaf, True),
        (("LookupError",), (), Leaf, True),
        (("Exception",), (), Leaf, True),
        (("Leaf",), (), Middle, False),
        (("ValueError",), (), Leaf, False),
        (("builtins.KeyError",), (), Leaf, True),
        ((f"{__name__}.Base",), (), Leaf, True),
        (("other.Base",), (), Leaf, False),
        (("base",), (), Leaf, False),
        ((), ("Leaf",), Leaf, False),
        ((), ("Base",), Leaf, False),
        ((), ("Leaf",), Middle, True),
        (("Leaf",), ("Base",), Leaf, False),
        (("Exception",), ("ValueError",), Leaf, True),
        (("TimeoutError",), (), TimeoutError, True),
        (("OSError",), (), ConnectionError, True),
        (("TimeoutError",), (), asyncio.TimeoutError, True),
        (("Exception",), (), KeyboardInterrupt, False),
        (("BaseException",), (), SystemExit, True),
        (("object",), (), Leaf, False),
    ],
)
def test_on_and_never_match_along_the_bases(
    on: tuple[str, ...], never: tuple[str, ...], error: type[BaseException], again: bool
) -> None:
    """By a class's name, short or with its module, or any base's; never wins."""
    assert may_retry(RetryPolicy(on=on, never=never), 1, class_names(error)) is again


@pytest.mark.parametrize(
    ("on", "never", "again"),
    [
        (("ConnectionError",), (), True),
        (("Base",), (), True),
        (("ExceptionGroup",), (), True),
        (("ValueError",), (), False),
        ((), ("Leaf",), False),
        (("ConnectionError",), ("Middle",), False),
        ((), ("ValueError",), True),
    ],
)
def test_a_group_matches_where_a_member_does(on: tuple[str, ...], never: tuple[str, ...], again: bool) -> None:
    """However deep the member is; its own name counts too, and never wins."""
    group = ExceptionGroup("both", [ConnectionResetError("a"), ExceptionGroup("deeper", [Leaf("b")])])
    assert may_retry(RetryPolicy(on=on, never=never), 1, error_names(group)) is again


def test_a_group_is_looked_at_for_a_bounded_time() -> None:
    """A chain of groups in groups, and one with very many members; each name once."""
    deep: Exception = Leaf("inside")
    for _ in range(5_000):
        deep = ExceptionGroup("deeper", [deep])
    wide = ExceptionGroup("wide", [OSError(str(i)) for i in range(100_000)])
    names = error_names(ExceptionGroup("both", [deep, wide]))
    assert {"Leaf", "OSError"} <= set(names)
    assert len(names) == len(set(names)) < 30


def test_the_last_attempt_is_the_last_whatever_failed() -> None:
    """One attempt means no retry."""
    assert not may_retry(RetryPolicy(max_attempts=1), 1, ("ValueError",))
    assert not may_retry(RetryPolicy(max_attempts=3, on=("ValueError",)), 3, ("ValueError",))
    assert may_retry(RetryPolicy(max_attempts=100), 99, ("ValueError",))
