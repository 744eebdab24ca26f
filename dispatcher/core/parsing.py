"""From hostile bytes to a JSON object, or to the one refusal code that counts first.

The fast path is the standard library's scanner with a hook that sees every object's pairs. What it cannot take is
looked at again, slowly, by rules that need no parser, so that the code does not depend on where parsing stopped.
"""

from __future__ import annotations

import json
import math
import re
from typing import Any

from dispatcher.core.refusals import Code, Refusal

#: Nesting of a payload; the body around it is one more.
MAX_PAYLOAD_DEPTH = 64
MAX_BODY_DEPTH = MAX_PAYLOAD_DEPTH + 1
INT64_MIN, INT64_MAX = -(2**63), 2**63 - 1

# matches from every quote on, even where a backslash ends the text: a search that fails is quadratic
_STRING = re.compile(r'"(?:[^"\\]|\\.)*(?:"|\\?\Z)', re.DOTALL)
_BRACKET = re.compile(r"[\[{\]}]")
_NON_FINITE = re.compile(r"NaN|Infinity")
_NUMBER = re.compile(r"-?\d+(?:\.\d+)?(?:[eE][+-]?\d+)?")
_SURROGATE = re.compile("[\ud800-\udfff]")


class _NonFinite(ValueError):
    """A constant that JSON does not have."""


class _Repeated(Exception):
    """A name stands twice in one object."""


def parse_body(body: bytes) -> dict[str, Any]:
    """The JSON object in a body.

    Numbers beyond 64 bits, names given twice and texts that MongoDB cannot hold pass here with the rest of the
    body intact: they are found by `unstorable`, whose code comes later in the order.

    Raises:
        Refusal: ``invalid_utf8``, ``too_deep``, ``not_finite``, ``invalid_json`` or ``not_an_object``.
    """
    try:
        text = body.decode("utf-8")
    except UnicodeDecodeError as error:
        raise Refusal(Code.INVALID_UTF8, f"the body is not UTF-8 (byte {error.start})") from None
    try:
        value = _load(text)
    except (ValueError, RecursionError):
        value = _look_again(text)
    _check_depth_and_numbers(value)
    if not isinstance(value, dict):
        raise Refusal(Code.NOT_AN_OBJECT, "the body must be one JSON object")
    return value


def _load(text: str) -> Any:
    try:
        return json.loads(text, object_pairs_hook=_object, parse_constant=_constant)
    except _Repeated:
        return json.loads(text, object_pairs_hook=_Repeating.of, parse_constant=_constant)


class _Repeating(dict[str, Any]):
    """An object that named a field twice; the last value counts until the fault is reported."""

    repeated = False

    @classmethod
    def of(cls, pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        made = cls(pairs)
        made.repeated = len(made) != len(pairs)
        return made


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    made = dict(pairs)
    if len(made) != len(pairs):
        raise _Repeated
    return made


def _constant(name: str) -> Any:
    raise _NonFinite(name)


def _look_again(text: str) -> Any:
    """Name the fault of a text that the parser refused; parse it if only its integers are too long."""
    bare = _STRING.sub('""', text)
    if _depth(bare) > MAX_BODY_DEPTH:
        raise _too_deep()
    if _NON_FINITE.search(bare) or any(map(_overflows, _NUMBER.findall(bare))):
        raise _not_finite()
    try:
        return json.loads(text, object_pairs_hook=_Repeating.of, parse_int=_int, parse_constant=_constant)
    except json.JSONDecodeError as error:
        raise Refusal(
            Code.INVALID_JSON,
            f"the body is not JSON: {error.msg} (line {error.lineno}, column {error.colno})",
        ) from None
    except (ValueError, RecursionError):
        raise Refusal(Code.INVALID_JSON, "the body is not JSON") from None


def _int(digits: str) -> int:
    """An integer whose exact value does not matter once it is beyond 64 bits (long ones are slow to read)."""
    return int(digits) if len(digits) <= 20 else (INT64_MAX + 1 if digits[0] != "-" else INT64_MIN - 1)


def _overflows(number: str) -> bool:
    """Whether a number that is not written as an integer is beyond a double's range."""
    return not number.lstrip("-").isdecimal() and math.isinf(float(number))


def _depth(bare: str) -> int:
    depth = deepest = 0
    for bracket in _BRACKET.findall(bare):
        depth += 1 if bracket in "[{" else -1
        deepest = max(deepest, depth)
    return deepest


def _too_deep() -> Refusal:
    return Refusal(Code.TOO_DEEP, f"the payload is nested deeper than {MAX_PAYLOAD_DEPTH} levels")


def _not_finite() -> Refusal:
    return Refusal(Code.NOT_FINITE, "numbers must be finite: no NaN, no Infinity, nothing beyond a double's range")


def _check_depth_and_numbers(value: Any) -> None:
    level = [value]
    finite = True
    depth = 0
    while level:
        below: list[Any] = []
        nested = False
        for item in level:
            kind = type(item)
            if kind is str or kind is int:
                continue
            if kind is float:
                finite = finite and math.isfinite(item)
            elif isinstance(item, dict):
                nested = True
                below += item.values()
            elif kind is list:
                nested = True
                below += item
        depth += nested
        if depth > MAX_BODY_DEPTH:
            raise _too_deep()
        level = below
    if not finite:
        raise _not_finite()


def unstorable(value: Any) -> str | None:
    """Why MongoDB could not hold this value, as the end of a sentence; None when it can.

    Used for payloads, whose depth and numbers were checked with the body, and for handlers' results, which come
    from code: for those every rule is checked here.
    """
    level, depth = [value], 0
    while level:
        below: list[Any] = []
        for item in level:
            reason = _unstorable_scalar(item)
            if reason:
                return reason
            if isinstance(item, dict):
                if getattr(item, "repeated", False):
                    return "holds an object with one name given twice"
                reason = _unstorable_names(item)
                if reason:
                    return reason
                below += item.values()
            elif isinstance(item, (list, tuple)):
                below += item
        depth += 1
        if depth > MAX_BODY_DEPTH + 1:
            return f"is nested deeper than {MAX_PAYLOAD_DEPTH} levels"
        level = below
    return None


def _unstorable_scalar(item: Any) -> str | None:
    kind = type(item)
    if kind is str:
        return None if item.isascii() else _unstorable_text(item)
    if kind is int and not INT64_MIN <= item <= INT64_MAX:
        return "holds an integer beyond 64 bits"
    if kind is float and not math.isfinite(item):
        return "holds a number that is not finite"
    return None


def _unstorable_text(text: str) -> str | None:
    return "holds half of a surrogate pair" if _SURROGATE.search(text) else None


def _unstorable_names(item: dict[Any, Any]) -> str | None:
    for name in item:
        if "\0" in name:
            return "has a NUL character in a name"
        if not name.isascii() and _SURROGATE.search(name):
            return "holds half of a surrogate pair"
    return None
