"""What handlers return, made fit for history."""

from __future__ import annotations

from typing import Any

import pydantic_core

from dispatcher.core.parsing import unstorable


class ResultError(Exception):
    """The handler's result cannot be recorded; running it again would not help."""


def storable(result: Any, max_bytes: int) -> Any:
    """The result as JSON values that MongoDB can hold.

    Raises:
        ResultError: it is no JSON, too large, or beyond what MongoDB stores.
    """
    if result is None:
        return None
    try:
        value = pydantic_core.to_jsonable_python(result)
        size = len(pydantic_core.to_json(value))
    except (pydantic_core.PydanticSerializationError, ValueError, RecursionError, UnicodeError) as error:
        raise ResultError(f"the result of type {type(result).__name__} cannot be written as JSON: {error}") from None
    if size > max_bytes:
        raise ResultError(
            f"the result has {size} bytes of JSON, at most {max_bytes} are recorded (worker.max_result_bytes); "
            "store it elsewhere and return a reference"
        )
    reason = unstorable(value)
    if reason:
        raise ResultError(f"the result {reason}")
    return value
