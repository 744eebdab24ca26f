"""Retry policy: which failure is tried again, and after how long.

The n-th retry waits ``min(base * factor^(n-1), max_delay)`` seconds, of which chance takes away at most the fraction
``jitter`` (the scheme of "Exponential Backoff And Jitter", AWS Architecture Blog, 2015: 1 is its full jitter, 0.5 its
equal jitter). With the defaults: 1, 2, 4, 8 s.
"""

from __future__ import annotations

import contextlib
import math
from collections.abc import Hashable, Iterable
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Any, cast

from schemas import RetrySpec

#: Members of an exception group that are looked at, groups among them included.
MAX_MEMBERS = 10_000


@dataclass(frozen=True, slots=True)
class RetryPolicy:
    """A complete policy. ``on`` empty means all failures, ``never`` empty means none; ``never`` wins."""

    max_attempts: int = 5
    base: float = 1.0
    factor: float = 2.0
    max_delay: float = 3600.0
    jitter: float = 0.0
    on: tuple[str, ...] = ()
    never: tuple[str, ...] = ()

    def with_spec(self, spec: RetrySpec | None) -> RetryPolicy:
        """This policy with the fields that ``spec`` sets, field by field."""
        if spec is None:
            return self
        return replace(self, **spec.model_dump(exclude_none=True))


def resolve(default: RetryPolicy, handler: RetrySpec | None, message: RetrySpec | None) -> RetryPolicy:
    """Field by field: the message's, else the handler's, else the default's."""
    return default.with_spec(handler).with_spec(message)


def delay_after(policy: RetryPolicy, n: int, chance: float) -> float:
    """Seconds between the end of attempt ``n`` and the start of the next.

    Args:
        policy: the job's policy.
        n: the attempt that failed, from 1. Any size: an overflow means ``max_delay``.
        chance: a random number in [0, 1).
    """
    try:
        delay = policy.base * policy.factor ** (n - 1)
    except OverflowError:
        delay = math.inf
    delay = min(delay, policy.max_delay)
    return max(delay * (1 - policy.jitter * chance), 0.125)


def class_names(exception: type[BaseException]) -> tuple[str, ...]:
    """The names along a class's bases, short and with their module, as ``on`` and ``never`` may give them."""
    return _names_along(cast(Hashable, exception))


def error_names(error: BaseException) -> tuple[str, ...]:
    """The names of what was raised: its class's, and those of every member of an exception group, however deep.

    So a group matches where a member does: ``on`` covers it if it covers a member, and ``never`` excludes it if it
    excludes one.
    """
    if not isinstance(error, BaseExceptionGroup):
        return class_names(type(error))
    names: dict[str, None] = {}
    waiting: list[BaseException] = [error]
    for _ in range(MAX_MEMBERS):
        if not waiting:
            break
        found = waiting.pop()
        names.update(dict.fromkeys(class_names(type(found))))
        if isinstance(found, BaseExceptionGroup):
            with contextlib.suppress(Exception):  # a subclass may have hidden them
                waiting.extend(reversed(found.exceptions))
    return tuple(names)


@lru_cache(maxsize=1024)
def _names_along(exception: Any) -> tuple[str, ...]:
    names: list[str] = []
    for base in exception.__mro__[:-1]:
        names += [base.__name__, f"{base.__module__}.{base.__qualname__}"]
    return tuple(names)


def may_retry(policy: RetryPolicy, n: int, names: Iterable[str]) -> bool:
    """Whether attempt ``n``, which failed with an exception of these names, is followed by another."""
    if n >= policy.max_attempts:
        return False
    found = set(names)
    if found.intersection(policy.never):
        return False
    return not policy.on or bool(found.intersection(policy.on))
