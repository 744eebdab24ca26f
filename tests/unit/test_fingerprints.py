"""Fingerprints: what differs from job to job does not count, what differs from trouble to trouble does."""

from __future__ import annotations

from typing import Any

import pytest

from dispatcher.core.dead_groups import MAX_GROUPS, DeadGroups
from dispatcher.core.fingerprints import fingerprint, normalised, own_frame

TRACEBACK = """Traceback (most recent call last):
  File "/srv/app/billing.py", line 41, in send
    client.post(url)
  File "/srv/venv/lib/python3.11/site-packages/http/client.py", line 7, in post
    raise ConnectionError
ConnectionError: no
"""


@pytest.mark.parametrize(
    ("message", "shown"),
    [
        ("user 4711 has no address", "user <n> has no address"),
        ("took 1.5 s, at most 1,000", "took <n> s, at most <n>"),
        ("no file '/tmp/a b' here", "no file <text> here"),
        ('key "x" and `y`', "key <text> and <text>"),
        ("job 01a20ffa-10b6-7d1c-ab50-6a512921a019 is gone", "job <id> is gone"),
        ("object at 0x7f8e2b1c", "object at <id>"),
        ("commit deadbeef01 broke", "commit <id> broke"),
        ("defaced facade", "defaced facade"),
        ("two\n  lines", "two lines"),
        ("", ""),
    ],
)
def test_what_varies_is_taken_out(message: str, shown: str) -> None:
    """Numbers, ids, hexadecimal and quoted text; words stay."""
    assert normalised(message) == shown


def test_a_long_message_costs_no_more_than_its_beginning() -> None:
    """Its end does not count."""
    assert normalised("a " * 1_000_000) == normalised("a " * 500)


def test_the_innermost_frame_of_ones_own_counts() -> None:
    """A library's frames are passed over, and line numbers left out."""
    assert own_frame(TRACEBACK) == "app/billing.py:send"
    assert own_frame('File "/usr/lib/python3.11/json/decoder.py", line 1, in decode') == "json/decoder.py:decode"
    assert own_frame("") == ""


def _error(**changed: Any) -> dict[str, Any]:
    return {"type": "ConnectionError", "message": "no answer from 10.0.0.7", "traceback": TRACEBACK, **changed}


def test_one_trouble_has_one_fingerprint() -> None:
    """Another number, another line; not another class, sentence or function."""
    one = fingerprint(_error()).id
    assert fingerprint(_error(message="no answer from 10.0.0.8")).id == one
    assert fingerprint(_error(traceback=TRACEBACK.replace("line 41", "line 52"))).id == one
    assert fingerprint(_error(type="TimeoutError")).id != one
    assert fingerprint(_error(message="refused by 10.0.0.7")).id != one
    assert fingerprint(_error(traceback=TRACEBACK.replace("in send", "in pay"))).id != one
    assert fingerprint({}).id == fingerprint({"type": "", "message": None}).id


def _dead(number: int, **error: Any) -> dict[str, Any]:
    job = {"_id": f"shop:{number}", "type": f"t{number % 2}", "accepted_at": number, "finished_at": number + 10}
    return job | {"error": _error(**error)}


def test_groups_count_jobs_and_show_the_last() -> None:
    """Types, first and last time, the last job as the example; the largest group first."""
    groups = DeadGroups()
    for number in (2, 1, 3):
        groups.add(_dead(number))
    groups.add(_dead(9, type="ValueError"))
    first, second = (group.document() for group in groups.largest())
    assert (first["count"], first["types"], first["example"]) == (3, {"t1": 2, "t0": 1}, "shop:3")
    assert (first["first_seen"], first["last_seen"]) == (11, 13)
    assert first["error"] == {"type": "ConnectionError", "message": "no answer from <n>"}
    assert (second["count"], second["error"]["type"]) == (1, "ValueError")


def test_groups_hold_a_bounded_number() -> None:
    """The jobs of further groups are only counted; those that are known go on."""
    groups = DeadGroups()
    for number in range(MAX_GROUPS + 5):
        groups.add(_dead(number, type=f"E{number}"))
    groups.add(_dead(0, type="E0"))
    assert groups.others == 5
    assert len(groups.largest()) == MAX_GROUPS
    assert groups.largest()[0].count == 2
