"""From bytes to a JSON object, or to the refusal code that counts first."""

from __future__ import annotations

import json
import math
import time
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from dispatcher.core.parsing import INT64_MAX, INT64_MIN, parse_body, unstorable
from dispatcher.core.refusals import Refusal


def outcome(body: bytes) -> str:
    """The refusal's code, or ``parsed``."""
    try:
        parse_body(body)
    except Refusal as refusal:
        return str(refusal.code)
    return "parsed"


def short(value: object) -> str:
    """A test's name from its argument."""
    return ascii(value[:24] if isinstance(value, (bytes, str)) else value)


def nested(depth: int, opening: str = '{"a":', closing: str = "}", core: str = "1") -> bytes:
    """A body whose payload is nested this deep."""
    return ('{"payload":' + opening * depth + core + closing * depth + "}").encode()


OVERFLOWING = ["1e400", "-1e400", "1" * 400 + ".0", "-" + "9" * 310 + ".5", "1E+999"]

CODES = [
    (b"\xff{}", "invalid_utf8"),
    (b'{"a":"\xed\xa0\x80"}', "invalid_utf8"),
    (b'{"a":"\xc0\xaf"}', "invalid_utf8"),
    (b"", "invalid_json"),
    (b"   ", "invalid_json"),
    (b"{", "invalid_json"),
    (b"{}{}", "invalid_json"),
    (b"{'a':1}", "invalid_json"),
    (b'{"a":1,}', "invalid_json"),
    (b'{"a":01}', "invalid_json"),
    (b"{\"a\":'1'}", "invalid_json"),
    (b'{"a":"\n"}', "invalid_json"),
    (b'{"a":"\\x"}', "invalid_json"),
    (b'\xef\xbb\xbf{"a":1}', "invalid_json"),
    (b'{"a":NaN}', "not_finite"),
    (b'{"a":[Infinity]}', "not_finite"),
    (b'{"a":-Infinity}', "not_finite"),
    (b"NaN", "not_finite"),
    (b"[1e400]", "not_finite"),
    *((b'{"a":%s}' % number.encode(), "not_finite") for number in OVERFLOWING),
    (b"[]", "not_an_object"),
    (b"null", "not_an_object"),
    (b'"text"', "not_an_object"),
    (b"12", "not_an_object"),
    (b"9" * 5_000, "not_an_object"),
    (b"{}", "parsed"),
    (b' \t\r\n{"a":1} \n', "parsed"),
    (b'{"a":"NaN Infinity 1e400"}', "parsed"),
    (b'{"a":1e308,"b":5e-324,"c":1e-400}', "parsed"),
    (b'{"a":%s}' % (b"9" * 5_000), "parsed"),
    ('{"a":"' + "[" * 200 + '"}', "parsed"),
    ('{"a":"\\"' + "[{" * 200 + '\\\\"}', "parsed"),
]


@pytest.mark.parametrize(("body", "code"), CODES, ids=short)
def test_each_fault_of_a_body_has_its_code(body: bytes | str, code: str) -> None:
    """The codes that a body alone can earn, each in its plainest forms."""
    assert outcome(body if isinstance(body, bytes) else body.encode()) == code


@pytest.mark.parametrize(("opening", "closing"), [('{"a":', "}"), ("[", "]"), ('[{"a":', "}]")])
def test_depth_64_is_the_deepest_payload(opening: str, closing: str) -> None:
    """A payload may be nested 64 deep, objects and arrays alike, and not 65."""
    step = opening.count("{") + opening.count("[")
    first = '{"a":'
    for depth, code in ((64, "parsed"), (65, "too_deep")):
        inner = ('{"payload":' + first + opening * ((depth - 1) // step)).encode()
        inner += b"[" * ((depth - 1) % step) + b"1" + b"]" * ((depth - 1) % step)
        inner += (closing * ((depth - 1) // step) + "}}").encode()
        json.loads(inner)
        assert outcome(inner) == code


ORDER = [
    (b"[" * 100_000, "too_deep"),
    (b'{"a":' * 100_000, "too_deep"),
    (b'{"a":' * 100_000 + b"\xff", "invalid_utf8"),
    (b"\xff NaN {", "invalid_utf8"),
    (nested(65, core="NaN"), "too_deep"),
    (nested(65, core="1e400"), "too_deep"),
    (nested(65)[:-1], "too_deep"),
    (nested(70, "[", "]")[1:], "too_deep"),
    (b"[" * 66 + b"]" * 66, "too_deep"),
    (b'{"a":NaN,', "not_finite"),
    (b'{"a":NaN} trailing', "not_finite"),
    (b"{bad, Infinity", "not_finite"),
    *((b'{"a":%s, bad' % number.encode(), "not_finite") for number in OVERFLOWING),
    (b"{bad 1e400", "not_finite"),
    (b"[NaN]", "not_finite"),
    (b"[1,", "invalid_json"),
    (b'{"a":"NaN", bad', "invalid_json"),
    (b'{"a":"\\"NaN", bad', "invalid_json"),
    (b'{"a":"unterminated NaN [[[', "invalid_json"),
]


@pytest.mark.parametrize(("body", "code"), ORDER, ids=short)
def test_the_first_code_counts_wherever_parsing_stopped(body: bytes, code: str) -> None:
    """utf-8, then depth, then finite numbers, then JSON, whichever stands first in the text."""
    assert outcome(body) == code


REPEATED = [
    (b'{"a":1,"a":2}', "parsed"),
    (b'{"x":{"a":1,"a":2},"b":NaN}', "not_finite"),
    (b'{"x":{"a":1,"a":2},"b":1e400}', "not_finite"),
    (b'{"x":{"a":1,"a":2},', "invalid_json"),
    (b'{"x":{"a":1,"a":2},"b":' + b"9" * 5_000 + b"}", "parsed"),
    (b'{"x":{"a":1,"a":2},"b":' + b"[" * 100_000, "too_deep"),
    (b'[{"a":1,"a":2}]', "not_an_object"),
]


@pytest.mark.parametrize(("body", "code"), REPEATED, ids=short)
def test_a_repeated_name_hides_no_other_fault(body: bytes, code: str) -> None:
    """A name given twice is reported later; any fault that counts before it is still found."""
    assert outcome(body) == code


def test_a_repeated_name_is_found_at_any_depth() -> None:
    """`unstorable` says so, whatever else the body made the parser do."""
    for body in (
        b'{"a":1,"a":1}',
        b'{"payload":{"x":[{"a":1,"\\u0061":2}]}}',
        b'{"payload":{"x":{"a":1,"a":2},"y":' + b"9" * 5_000 + b"}}",
    ):
        assert unstorable(parse_body(body)) is not None
    assert unstorable(parse_body(b'{"a":{"a":{"a":1}},"b":[{"a":1},{"a":1}]}')) is None


SLOW = [
    b'{"' + b'\\"' * 131_000 + b"\\",
    b'"' * 262_000 + b"\\",
    b'{"a":"' + b"\\" * 262_001,
    b"-" * 262_000,
    b"1" * 262_000 + b"e",
    b"1e" * 131_000,
    b"[" * 262_000,
    b"{" * 131_000 + b"}" * 131_000,
    b'{"a":' + b"1." * 131_000,
    b'{"a":1,"a":' * 20_000,
    b'{"a":' + b"9" * 262_000 + b"}",
    b'{"a":-' + b"9" * 262_000 + b".0e5}",
]


@pytest.mark.parametrize("body", SLOW, ids=range(len(SLOW)))
def test_no_body_of_the_full_size_takes_long(body: bytes) -> None:
    """Hostile bodies cost time in proportion to their size: a quadratic search would take minutes."""
    began = time.process_time()
    outcome(body)
    assert time.process_time() - began < 2


@pytest.mark.parametrize(
    ("value", "storable"),
    [
        (INT64_MAX, True),
        (INT64_MAX + 1, False),
        (INT64_MIN, True),
        (INT64_MIN - 1, False),
        (10**30, False),
        (True, True),
        (None, True),
        (-0.0, True),
        (1e308, True),
        (math.inf, False),
        (math.nan, False),
        ("text\0with NUL", True),
        ("é 漢 😀", True),
        ("\ud83d", False),
        ("\udc00 alone", False),
        ({"a\0b": 1}, False),
        ({"\ud800": 1}, False),
        ({"é": 1}, True),
        ({"": 1, "$set": 2, "a.b": 3}, True),
    ],
)
def test_what_mongodb_can_hold(value: Any, storable: bool) -> None:
    """64-bit integers, finite numbers, whole characters, no NUL in a name; the same one level down."""
    assert (unstorable(value) is None) is storable
    assert (unstorable({"payload": {"list": [value]}}) is None) is storable


def test_a_result_may_be_as_deep_as_a_payload_and_not_endless() -> None:
    """Handlers' results have no parser before them: their depth is checked too."""

    def chain(depth: int) -> Any:
        value: Any = 1
        for _ in range(depth):
            value = [value]
        return value

    assert unstorable(chain(64)) is None
    assert unstorable(chain(100)) is not None


@pytest.mark.parametrize("digits", [str(INT64_MAX), str(INT64_MIN), "0", "-0", "9" * 18])
def test_integers_within_64_bits_are_exact(digits: str) -> None:
    """The slow path, taken because of one huge integer, keeps the others exact."""
    body = b'{"a":%s,"b":%s}' % (digits.encode(), b"9" * 5_000)
    assert parse_body(body)["a"] == int(digits)


JSON_LIKE = st.text(alphabet='{}[]":,\\ntrufalsNaIiy0123456789.eE+- \x00é', max_size=60)


@given(st.one_of(st.binary(max_size=80), JSON_LIKE.map(str.encode)))
@example(b'{"x":{"a":1,"a":2},')
def test_any_bytes_parse_or_are_refused(body: bytes) -> None:
    """Nothing but `Refusal` ever leaves the parser, and what is refused as invalid_json is no JSON."""
    code = outcome(body)
    if code == "invalid_json":
        with pytest.raises(ValueError):
            json.loads(body.decode())


VALUES = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(INT64_MIN, INT64_MAX)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(st.characters(exclude_categories=["Cs"]), max_size=8),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=5), inner, max_size=4),
    max_leaves=12,
)


@given(st.dictionaries(st.text(st.characters(exclude_categories=["Cs"]), max_size=5), VALUES, max_size=4))
@example({"a": [-0.0, 5e-324, 1.7976931348623157e308, INT64_MIN, "\u2028 😀"]})
def test_every_object_comes_through_exactly(value: dict[str, Any]) -> None:
    """The parser loses nothing: repr tells -0.0 from 0 and 1 from 1.0."""
    for text in (json.dumps(value), json.dumps(value, ensure_ascii=False)):
        assert repr(parse_body(text.encode())) == repr(json.loads(text))


@given(st.dictionaries(st.text(max_size=3), VALUES, min_size=1, max_size=3), st.data())
def test_a_valid_body_cut_short_is_invalid_json(value: dict[str, Any], data: st.DataObject) -> None:
    """Every proper beginning of a body is refused as invalid_json (or, cut inside a character, invalid_utf8)."""
    body = json.dumps(value, ensure_ascii=False).encode("utf-8", "surrogatepass")
    cut = body[: data.draw(st.integers(0, len(body) - 1))]
    assert outcome(cut) in ("invalid_json", "invalid_utf8")
