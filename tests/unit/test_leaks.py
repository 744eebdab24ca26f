"""Keys in streams of any bytes."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dispatcher.core.leaks import OVERLAP, scan
from tests.unit.samples import KEY, make_key

OTHER = make_key(3)[0]


def cut(data: bytes, size: int) -> list[bytes]:
    """The data in blocks of this size."""
    return [data[at : at + size] for at in range(0, len(data), size)]


@given(st.integers(1, 300), st.binary(max_size=120), st.binary(max_size=120))
def test_a_key_is_found_wherever_blocks_are_cut(size: int, before: bytes, after: bytes) -> None:
    """Once, on its line, whatever stands around it."""
    data = before + b"\n=" + KEY.encode() + b"\n" + after + b"\n" + OTHER.encode()
    found = list(scan(cut(data, size)))
    assert found == [
        (before.count(b"\n") + 2, KEY),
        (before.count(b"\n") + after.count(b"\n") + 4, OTHER),
    ]


@pytest.mark.parametrize("size", [7, 100, 4_096, 1 << 20])
def test_keys_in_one_long_line(size: int) -> None:
    """A minified file: each key once, though pieces of the line overlap; memory holds a piece, not the line."""
    data = b"x" * (3 * OVERLAP) + KEY.encode() + b"," + KEY.encode() + b"y" * (2 * OVERLAP) + OTHER.encode() + b"z" * 9
    assert list(scan(cut(data, size))) == [(1, KEY), (1, OTHER)]


@pytest.mark.parametrize("size", [50, 1 << 20])
def test_keys_that_are_escaped_or_in_utf_16(size: int) -> None:
    """JSON may write any letter as an escape, JSON within JSON too; some shells write UTF-16."""
    escaped = "".join(f"\\u{ord(c):04x}" for c in KEY)
    nested = json.dumps(json.dumps({"k": OTHER.replace("_", "\\u005f")}))
    assert list(scan(cut(f"one\n{escaped}\n{nested}".encode(), size))) == [(2, KEY), (3, OTHER)]
    assert list(scan(cut(f"one\r\ntwo {KEY}\r\n".encode("utf-16"), size))) == [(2, KEY)]


def test_the_same_key_on_a_later_line_is_found_again() -> None:
    """Whatever was between: a block without a key too."""
    assert list(scan([KEY.encode(), b"\nplain\n", KEY.encode()])) == [(1, KEY), (3, KEY)]


def test_what_only_looks_like_a_key_is_none() -> None:
    """The checksum says so."""
    assert (
        list(scan([KEY[:-1].encode() + b"!", KEY.replace("jd_", "jb_").encode(), KEY[:-6].encode() + b"000000"])) == []
    )
