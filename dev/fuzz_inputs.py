"""Inputs for the fuzz targets: hostile ones made anew, and files of the corpus with some damage."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from hypothesis import strategies as st

from dev.fuzz_targets import PLACEHOLDER, RECORDS, Case
from dispatcher.core.admission import KNOWN_FIELDS
from schemas import PRIORITIES, JobState, Outcome, RetrySpec

CORPUS = Path(__file__).resolve().parents[1] / "tests" / "corpus"

#: Pieces that parsers stumble over.
TOKENS = [
    *(b"", b"\xff", b"\x00", b"\xed\xa0\x80", b"\xef\xbb\xbf", b"{", b"}", b"[", b"]", b'"', b"\\", b",", b":", b"\n"),
    *(b"NaN", b"-Infinity", b"1e999", b"-0", b"5e-324", b"null", b"true", b"9" * 19, b"9" * 30, b"9" * 5_000, b"0.1"),
    *(b"\\ud800", b"\\u0000", b"\\u005c", b"\\u006ad_", b"\\\\u006a", b"jd_", b"[" * 70, b'{"a":' * 70, b"]" * 70),
    *(PLACEHOLDER.encode(), PLACEHOLDER.encode() + b"_", b'"$set"', b'"a.b"', b'"_id"', b'"kind":"ended"'),
]
TEXTS = st.one_of(
    st.text(max_size=12),
    st.sampled_from(["", "\0", "\ud800", "a" * 129, PLACEHOLDER, "default", "bulk", "$set", "Secretwords", "é😀"]),
)
NUMBERS = st.one_of(
    st.integers(-3, 5),
    st.sampled_from([2**31, 2**53, 2**63 - 1, 2**63, -(2**63) - 1, 10**30, 253_402_300_799_999, 253_402_300_800_000]),
    st.sampled_from([0.1, 0.125, 1e308, -0.0, 5e-324, float("nan"), float("inf"), 86_400.0, 86_400.1]),
)
VALUES = st.recursive(
    st.one_of(st.none(), st.booleans(), NUMBERS, TEXTS),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(TEXTS, inner, max_size=3),
    max_leaves=6,
)


def seldom(hostile: st.SearchStrategy[Any], usual: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    """Usual values, and one hostile among twenty: with more of them most inputs end at the first fault."""
    return st.integers(0, 19).flatmap(lambda number: hostile if number == 19 else usual)


def damaged(files: st.SearchStrategy[bytes]) -> st.SearchStrategy[bytes]:
    """Files with pieces taken out, put in and put twice."""

    def damage(draw: Callable[[st.SearchStrategy[Any]], Any]) -> bytes:
        data = bytearray(draw(files))
        for _ in range(draw(st.integers(0, 4))):
            at = draw(st.integers(0, len(data)))
            cut = draw(st.sampled_from([0, 0, 1, 2, 5, 40]))
            data[at : at + cut] = draw(st.sampled_from(TOKENS)) if draw(st.booleans()) else data[at : at + 2 * cut]
        return bytes(data)

    return st.composite(damage)()


def corpus(target: str) -> list[Path]:
    """The kept inputs of a target."""
    return sorted(path for path in (CORPUS / target).iterdir() if path.is_file())


def _kept(target: str) -> st.SearchStrategy[bytes]:
    return st.sampled_from([path.read_bytes() for path in corpus(target)])


def _written(value: Any, ascii_only: bool) -> bytes:
    return json.dumps(value, ensure_ascii=ascii_only).encode("utf-8", "surrogatepass")


def _json(values: st.SearchStrategy[Any]) -> st.SearchStrategy[bytes]:
    return st.builds(_written, values, st.booleans())


# ---- intake

_RETRY = st.dictionaries(st.sampled_from([*RetrySpec.model_fields, "nope"]), VALUES, max_size=4)
_GOOD: dict[str, st.SearchStrategy[Any]] = {
    "payload": st.dictionaries(TEXTS, VALUES, max_size=4),
    "id": st.from_regex(r"\A[A-Za-z0-9._-]{1,20}\Z"),
    "priority": st.sampled_from(PRIORITIES),
    "timeout": st.floats(0.1, 86_400),
    "lane": st.sampled_from(["default", "bulk", "nowhere"]),
    "tags": st.lists(TEXTS, max_size=3),
    "retry": _RETRY,
}
_BODIES = st.one_of(
    _json(st.fixed_dictionaries({}, optional=_GOOD)),
    _json(st.dictionaries(st.sampled_from([*KNOWN_FIELDS, "nope", PLACEHOLDER]), VALUES, max_size=4)),
    _json(VALUES),
    st.binary(max_size=40),
)
_HEADERS = st.one_of(
    st.just(PLACEHOLDER),
    st.none(),
    st.sampled_from(
        [
            PLACEHOLDER.encode(),
            PLACEHOLDER + " ",
            PLACEHOLDER[:3],
            "jd_a_b_c",
            "00-" + "1" * 32 + "-" + "2" * 16 + "-01",
        ]
    ),
    st.text(max_size=20),
    st.binary(max_size=20),
    st.integers(-1, 2**70),
    st.booleans(),
    st.lists(st.text(max_size=3), max_size=2),
)
_ROUTING_KEYS = st.one_of(
    st.sampled_from(["email.send", "report.build", "a" * 101, "", ".", "a..b", "A", "*", "#", PLACEHOLDER, "a\n"]),
    st.text(max_size=20),
)


def _case(body: bytes, **fields: Any) -> bytes:
    return Case(body, **fields).encode()


def _damaged_body(file: bytes) -> st.SearchStrategy[bytes]:
    head, _, body = file.partition(b"\n")
    return damaged(st.just(body)).map(lambda data: head + b"\n" + data)


def intake() -> st.SearchStrategy[bytes]:
    """Cases for intake."""
    made = st.builds(
        _case,
        st.one_of(_BODIES, damaged(_BODIES)),
        routing_key=seldom(_ROUTING_KEYS, st.sampled_from(["email.send", "report.build"])),
        api_key=seldom(_HEADERS, st.just(PLACEHOLDER)),
        record=seldom(st.sampled_from([*RECORDS]), st.sampled_from(["all", "limited"])),
        traceparent=st.one_of(st.none(), _HEADERS),
        tracestate=st.one_of(st.none(), _HEADERS),
    )
    return st.one_of(made, _kept("intake").flatmap(_damaged_body))


# ---- events

_TIMES = seldom(NUMBERS, st.integers(1_799_999_999_990, 1_800_000_000_010))
_COUNTS = seldom(NUMBERS, st.integers(1, 3))
_NAMES = seldom(TEXTS, st.sampled_from(["a", "b"]))
_ERROR = st.fixed_dictionaries({"type": _NAMES}, optional={"message": _NAMES, "traceback": _NAMES})
_ABOUT: dict[str, st.SearchStrategy[Any]] = {
    "kind": st.sampled_from(["accepted", "started", "ended", "moved", "rerun", "refused", "other"]),
    "app": st.sampled_from(["shop", "a"]),
    "id": st.sampled_from(["j", "k"]),
}
_BY_KIND: dict[str, dict[str, st.SearchStrategy[Any]]] = {
    "accepted": {"key_id": _NAMES, "payload": _GOOD["payload"]},
    "started": {"n": _COUNTS, "execution": _NAMES, "started_at": _TIMES, "worker": _NAMES},
    "ended": {
        "n": _COUNTS,
        "execution": _NAMES,
        "started_at": _TIMES,
        "finished_at": _TIMES,
        "worker": _NAMES,
        "outcome": st.sampled_from(Outcome).map(str),
        "state": st.sampled_from(JobState).map(str),
    },
    "moved": {"at": _TIMES, "state": st.sampled_from(JobState).map(str)},
    "rerun": {"at": _TIMES, "by": st.sampled_from(["retry", "replay"])},
    "refused": {"key_id": _NAMES, "at": _TIMES, "code": _NAMES, "message": _NAMES},
}
_MORE: dict[str, dict[str, st.SearchStrategy[Any]]] = {
    "accepted": {
        "tags": st.lists(TEXTS, max_size=2),
        "timeout": NUMBERS,
        "retry": seldom(_RETRY, st.just({"base": 1.0})),
    },
    "ended": {"due_at": _TIMES, "error": _ERROR, "result": VALUES},
    "moved": {"due_at": _TIMES, "error": _ERROR},
}


def _event(kind: str) -> st.SearchStrategy[dict[str, Any]]:
    fields = {**_ABOUT, "kind": st.just(kind), "type": st.sampled_from(["email.send", ""]), **_BY_KIND[kind]}
    places: dict[str, st.SearchStrategy[Any]] = {}
    if kind != "refused":
        fields |= {"lane": st.just("default"), "priority": st.just("normal"), "accepted_at": _TIMES}
        places = {"run": _COUNTS, "seq": _COUNTS}
    return st.fixed_dictionaries(fields, optional={**places, **_MORE.get(kind, {})})


_EVENT = st.sampled_from(sorted(_BY_KIND)).flatmap(_event)
_BATCH = st.fixed_dictionaries({"events": st.lists(_EVENT, max_size=5)}, optional={"v": seldom(NUMBERS, st.just(1))})


def events() -> st.SearchStrategy[bytes]:
    """Bodies for ``history.v1``."""
    made = _json(st.one_of(_BATCH, VALUES))
    return st.one_of(made, damaged(made), damaged(_kept("events")), st.binary(max_size=40))


INPUTS = {"intake": intake, "events": events}
