"""What handlers return, made fit for history."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pydantic_core

from dispatcher.core.parsing import unstorable

#: What becomes a JSON array.
_LISTS = (list, tuple, set, frozenset)


class ResultError(Exception):
    """The handler's result cannot be recorded; running it again would not help."""


def storable(result: Any, max_bytes: int) -> Any:
    """The result as JSON values that MongoDB can hold.

    Raises:
        ResultError: it is no JSON, too large, or beyond what MongoDB stores.
    """
    if result is None:
        return None
    if size := _over(result, max_bytes):
        raise _too_large(f"at least {size}", max_bytes)
    try:
        value = pydantic_core.to_jsonable_python(result)
        size = len(pydantic_core.to_json(value))
    except Exception as error:  # whatever its own code raises, when it is asked for its values
        raise ResultError(f"the result of type {type(result).__name__} cannot be written as JSON: {error}") from None
    if size > max_bytes:
        raise _too_large(str(size), max_bytes)
    reason = unstorable(value)
    if reason:
        raise ResultError(f"the result {reason}")
    return value


def _too_large(size: str, max_bytes: int) -> ResultError:
    return ResultError(
        f"the result has {size} bytes of JSON, at most {max_bytes} are recorded (worker.max_result_bytes); "
        "store it elsewhere and return a reference"
    )


def _over(result: Any, max_bytes: int) -> int:
    """A size that the result's JSON has at least, where that is over the limit already; else 0.

    A hundred megabytes take seconds to write as JSON, as much memory again, and the event loop meanwhile. So plain
    values are looked at first, and no further than the limit. What only pydantic can write counts as one byte.
    """
    size, waiting = 0, [iter((result,))]
    while waiting:
        for value in waiting.pop():
            if isinstance(value, Iterator):
                raise ResultError(f"the result has a {type(value).__name__}: it has no values yet; return a list")
            size += _own_bytes(value)
            if size > max_bytes:
                return size
            if isinstance(value, dict):
                size += sum(len(name) + 2 if isinstance(name, str) else 1 for name in value)
                waiting.append(iter(value.values()))
            elif isinstance(value, _LISTS):
                waiting.append(iter(value))
    return 0


def _own_bytes(value: Any) -> int:
    """The least size of a value without its members: quotes, brackets, commas, colons, text."""
    if isinstance(value, (str, bytes, bytearray)):
        return len(value) + 2
    if isinstance(value, dict):
        return 1 + 2 * len(value)
    if isinstance(value, _LISTS):
        return 1 + len(value)
    return 1
