"""Intake's decision: every refusal code, the order when several apply, the bounds of every field."""

from __future__ import annotations

import json
from typing import Any

import pytest

from dispatcher.core.admission import KNOWN_FIELDS, NOT_BUILT, authenticate, encode_work, identify, read_trace
from dispatcher.core.refusals import Code, Refusal
from dispatcher.core.topology import MAX_MESSAGE_BYTES
from tests.unit.samples import (
    JOB_TYPE,
    KEY,
    KEY_ID,
    NOW,
    RECORD,
    RULES,
    code_of,
    make_key,
    make_record,
    refused,
    submit,
)

BIG = b'{"payload":{"a":"' + b"x" * RULES.max_body_bytes + b'"}}'
ALL_FIELDS = {
    "type",
    "payload",
    "id",
    "priority",
    "delay",
    "run_at",
    "expires",
    "deadline",
    "timeout",
    "retry",
    "group",
    "unique",
    "depends_on",
    "callback",
    "template",
    "lane",
    "tags",
}


def key_code(api_key: object, record: Any = RECORD, now: int = NOW) -> str:
    """The code that a key alone earns, or ``admitted``."""
    try:
        identify(api_key)
        authenticate(api_key, record, now)
    except Refusal as refusal:
        return str(refusal.code)
    return "admitted"


OTHER_KEY, _ = make_key(1)
REVOKED = make_record(KEY, KEY_ID, revoked=True)
EXPIRED = make_record(KEY, KEY_ID, expires_at=NOW)
BOTH = make_record(KEY, KEY_ID, expires_at=NOW - 1, revoked=True)


@pytest.mark.parametrize(
    ("api_key", "record", "code"),
    [
        (None, RECORD, "missing_key"),
        ("", RECORD, "malformed_key"),
        (12, RECORD, "malformed_key"),
        ([KEY], RECORD, "malformed_key"),
        ({"key": KEY}, RECORD, "malformed_key"),
        (True, RECORD, "malformed_key"),
        (b"\xff\x00", RECORD, "malformed_key"),
        (KEY[:-1], RECORD, "malformed_key"),
        (KEY + "\n", RECORD, "malformed_key"),
        (" " + KEY, RECORD, "malformed_key"),
        (KEY, None, "unknown_key"),
        (OTHER_KEY, RECORD, "unknown_key"),
        (KEY, REVOKED, "revoked_key"),
        (KEY, EXPIRED, "expired_key"),
        (KEY, BOTH, "revoked_key"),
        (KEY, RECORD, "admitted"),
        (KEY.encode(), RECORD, "admitted"),
        (bytearray(KEY.encode()), RECORD, "admitted"),
    ],
)
def test_what_a_key_alone_decides(api_key: object, record: Any, code: str) -> None:
    """Every code of the key, for every kind of value that an AMQP header can hold."""
    assert key_code(api_key, record) == code


def test_a_revoked_record_does_not_say_so_to_another_key() -> None:
    """A guessed secret under a known id learns nothing about that id's state."""
    assert key_code(OTHER_KEY, REVOKED) == "unknown_key"


TYPES = [
    ("a", True),
    ("a.b.c", True),
    ("a_b-c.0", True),
    ("x" * 100, True),
    ("x" * 101, False),
    ("", False),
    (".", False),
    ("a.", False),
    (".a", False),
    ("a..b", False),
    ("A", False),
    ("a b", False),
    ("a\n", False),
    ("é", False),
    ("a.*", False),
    ("a.#", False),
    ("\u0661", False),
]


@pytest.mark.parametrize(("routing_key", "good"), TYPES)
def test_the_form_of_a_type(routing_key: str, good: bool) -> None:
    """Dot-separated words of [a-z0-9_-], 1 to 100 characters."""
    assert code_of({}, routing_key) == ("admitted" if good else "bad_type")


ACCEPTED: list[dict[str, Any]] = [
    {},
    {"type": JOB_TYPE},
    {"payload": {}},
    {"payload": {"a": [1, 2.5, None, True, "é", {"b": []}]}},
    {"payload": {"i": 2**63 - 1, "j": -(2**63)}},
    {"id": "x"},
    {"id": "A.b_c-9" * 18 + "zz"},
    *({"priority": p} for p in ("critical", "high", "normal", "low", "background")),
    {"timeout": 0.1},
    {"timeout": 1},
    {"timeout": 86_400},
    {"retry": {}},
    {"retry": {"max_attempts": 1, "base": 0.125, "factor": 1, "max_delay": 0.125, "jitter": 0}},
    {"retry": {"max_attempts": 100, "base": 86_400, "factor": 10, "max_delay": 86_400, "jitter": 1}},
    {"retry": {"on": ["ValueError", "requests.ConnectionError", "_X9"], "never": []}},
    {"retry": {"on": ["E"] * 100}},
    {"lane": "default"},
    {"lane": "bulk"},
    {"tags": []},
    {"tags": ["x" * 64] * 10},
    {"tags": ["é" * 64]},
]


@pytest.mark.parametrize("body", ACCEPTED, ids=str)
def test_the_widest_values_are_admitted(body: dict[str, Any]) -> None:
    """The bounds of the contract belong to what is allowed."""
    assert code_of(body) == "admitted"


INVALID: list[dict[str, Any]] = [
    *({name: None} for name in ("type", "payload", "id", "priority", "timeout", "retry", "lane", "tags")),
    {"type": 5},
    *({"payload": value} for value in ([], "x", 1, True)),
    {"payload": {"i": 2**63}},
    {"payload": {"i": -(2**63) - 1}},
    {"payload": {"a\0b": 1}},
    {"payload": {"a": ["\ud800"]}},
    {"payload": {"a": {"\udfff": 1}}},
    *({"id": value} for value in ("", "x" * 129, "a b", "a:b", "a/b", "é", "a\n", "\n", 5, True, ["a"])),
    *({"priority": value} for value in ("", "urgent", "High", 1, ["high"])),
    *({"timeout": value} for value in (0, 0.09, 86_400.1, -1, "30", True, [1], 10**30)),
    *({"retry": value} for value in ([], "x", 5, True)),
    *({"retry": {"max_attempts": value}} for value in (0, 101, -1, 1.5, "5", True)),
    *({"retry": {"base": value}} for value in (0, 0.124, 86_400.5, "1", True)),
    *({"retry": {"factor": value}} for value in (0.99, 10.01, -2, "2")),
    *({"retry": {"max_delay": value}} for value in (86_401, 0, -1, "9")),
    *({"retry": {"jitter": value}} for value in (-0.01, 1.01, "0", True)),
    *({"retry": {name: value}} for name in ("on", "never") for value in ("E", [""], ["a b"], [5], ["E"] * 101, {})),
    *({"lane": value} for value in ("", "x" * 33, "Bulk", "a.b", "bulk\n", 5)),
    *({"tags": value} for value in ("x", ["x" * 65], [""], ["x"] * 11, [5], [None], {"a": 1}, ["\ud800"])),
]


@pytest.mark.parametrize("body", INVALID, ids=lambda body: ascii(body)[:40])
def test_everything_past_a_bound_is_an_invalid_field(body: dict[str, Any]) -> None:
    """One step beyond each bound, each wrong kind of value, and null for every field."""
    assert code_of(body) == "invalid_field"


def test_the_first_part_of_the_sentence_names_the_field() -> None:
    """Whoever reads a refusal learns which field to mend."""
    for body in ({"id": "a b"}, {"timeout": 0}, {"tags": [""]}, {"lane": "X"}, {"id": None}):
        refusal = refused(body)
        assert refusal is not None
        assert refusal.sentence.startswith(f"{next(iter(body))}")
    refusal = refused({"retry": {"base": 0}})
    assert refusal is not None
    assert refusal.sentence.startswith("retry.base: ")


def test_fields_that_are_not_built_are_unsupported() -> None:
    """Each field of the contract is either understood or refused as unsupported; none is ignored."""
    assert set(KNOWN_FIELDS) == ALL_FIELDS
    for name in ALL_FIELDS:
        assert (code_of({name: 1}) == "unsupported") is (name in NOT_BUILT)
        assert (code_of({name: None}) == "unsupported") is (name in NOT_BUILT)


@pytest.mark.parametrize(
    ("body", "nearest"),
    [
        ({"priorty": "high"}, "priority"),
        ({"Delay": 5}, "delay"),
        ({"tag": []}, "tags"),
        ({"retry": {"max_attempt": 5}}, "max_attempts"),
        ({"retry": {"nevr": []}}, "never"),
    ],
    ids=str,
)
def test_an_unknown_field_names_the_nearest_known_one(body: dict[str, Any], nearest: str) -> None:
    """At the top and within retry."""
    refusal = refused(body)
    assert refusal is not None
    assert refusal.code is Code.UNKNOWN_FIELD
    assert f'"{nearest}"' in refusal.sentence


@pytest.mark.parametrize("name", ["", "x" * 10_000, "\ud800", "\0", "漢字", "$where"], ids=ascii)
def test_no_field_name_is_too_strange_to_be_refused(name: str) -> None:
    """The look for the nearest name takes anything that JSON can hold, quickly."""
    assert code_of({name: 1}) == "unknown_field"
    assert code_of({"retry": {name: 1}}) == "unknown_field"


LIMITED = make_record(
    KEY, KEY_ID, types=("email.*", "report.#"), lanes=("default",), max_priority="normal", max_bytes=1_000
)


@pytest.mark.parametrize(
    ("routing_key", "body", "code"),
    [
        ("email.send", {}, "admitted"),
        ("email.send.now", {}, "forbidden"),
        ("report", {}, "admitted"),
        ("invoice", {}, "forbidden"),
        ("report.build", {}, "forbidden"),
        ("email.send", {"lane": "bulk"}, "forbidden"),
        ("email.send", {"lane": "default"}, "admitted"),
        ("email.send", {"priority": "high"}, "forbidden"),
        ("email.send", {"priority": "critical"}, "forbidden"),
        ("email.send", {"priority": "normal"}, "admitted"),
        ("email.send", {"priority": "background"}, "admitted"),
        ("email.send", {"payload": {"a": "x" * 1_000}}, "too_large"),
    ],
)
def test_the_limits_of_a_key(routing_key: str, body: dict[str, Any], code: str) -> None:
    """Types, lanes (the type's own too), highest priority and size."""
    assert code_of(body, routing_key, LIMITED) == code


def test_the_size_limit_belongs_to_what_is_allowed() -> None:
    """A body of exactly the limit is taken, one byte more is too_large; a key cannot raise the limit."""
    body = b'{"payload":{"a":"%s"}}'
    fill = RULES.max_body_bytes - len(body) + 2
    roomy = make_record(KEY, KEY_ID, max_bytes=10 * RULES.max_body_bytes)
    for record in (RECORD, roomy):
        assert code_of(body % (b"x" * fill), record=record) == "admitted"
        assert code_of(body % (b"x" * (fill + 1)), record=record) == "too_large"


def test_a_job_that_grows_over_what_a_broker_takes_is_refused() -> None:
    """What counts is the job written out: to the byte, whatever the configuration allows."""
    empty = submit({"payload": {"a": ""}}).work
    most = MAX_MESSAGE_BYTES - (1 << 20)  # the rest is for the event, and for what later steps add
    room = most - len(empty.encode())
    full = empty.model_copy(update={"payload": {"a": "x" * room}})
    assert encode_work(full) == full.encode()
    with pytest.raises(Refusal, match=f"takes {most + 1} bytes") as refusal:
        encode_work(empty.model_copy(update={"payload": {"a": "x" * (room + 1)}}))
    assert refusal.value.code == Code.TOO_LARGE


PAIRS: list[tuple[str, bytes | dict[str, Any], str]] = [
    ("Bad Type", BIG, "bad_type"),
    ("Bad Type", b"\xff", "bad_type"),
    ("invoice", BIG, "forbidden"),
    ("invoice", b"\xff", "forbidden"),
    ("invoice", {"nope": 1}, "forbidden"),
    ("email.send", BIG + b"\xff", "too_large"),
    ("email.send", b"[" * 300_000, "too_large"),
    ("email.send", b"NaN" + b" " * 300_000, "too_large"),
    ("email.send", b"[" * 900 + b"\xff", "invalid_utf8"),
    ("email.send", b"[" * 900, "too_deep"),
    ("email.send", b'{"a":NaN', "not_finite"),
    ("email.send", b'{"payload":{"a":1e400},"nope":1}', "not_finite"),
    ("email.send", b'{"nope":1,', "invalid_json"),
    ("email.send", b"[1]", "not_an_object"),
    ("email.send", {"nope": 1, "delay": 5}, "unknown_field"),
    ("email.send", {"delay": 5, "nope": 1}, "unknown_field"),
    ("email.send", {"delay": 5, "retry": {"nope": 1}}, "unknown_field"),
    ("email.send", {"nope": 1, "id": 5}, "unknown_field"),
    ("email.send", {"retry": {"nope": 1, "base": 0}}, "unknown_field"),
    ("email.send", {"nope": 1, "payload": {"i": 2**63}}, "unknown_field"),
    ("email.send", b'{"nope":1,"nope":2}', "unknown_field"),
    ("email.send", {"callback": 5, "type": "other"}, "unsupported"),
    ("email.send", {"callback": 5, "run_at": "x"}, "unsupported"),
    ("email.send", {"callback": 5, "id": 5}, "unsupported"),
    ("email.send", {"callback": 5, "lane": "nowhere"}, "unsupported"),
    ("email.send", {"type": "other", "id": 5}, "type_mismatch"),
    ("email.send", {"type": "other", "id": None}, "type_mismatch"),
    ("email.send", {"type": "other", "lane": "nowhere"}, "type_mismatch"),
    ("email.send", {"type": "other", "payload": {"i": 2**63}}, "type_mismatch"),
    ("email.send", {"delay": 5, "run_at": "x", "id": 5}, "conflicting_fields"),
    ("email.send", {"run_at": "x", "lane": "nowhere"}, "invalid_field"),
    ("email.send", {"id": 5, "lane": "nowhere"}, "invalid_field"),
    ("email.send", {"payload": {"i": 2**63}, "lane": "nowhere"}, "invalid_field"),
    ("email.send", {"payload": {"key": KEY}, "lane": "nowhere"}, "invalid_field"),
    ("email.send", {"id": 5, "priority": "critical"}, "invalid_field"),
    ("email.send", b'{"payload":{"a":1,"a":1},"lane":"nowhere"}', "invalid_field"),
    ("email.send", {"lane": "nowhere", "priority": "critical"}, "unknown_lane"),
    ("email.send", {"lane": "bulk", "priority": "critical"}, "forbidden"),
]


@pytest.mark.parametrize(("routing_key", "body", "code"), PAIRS, ids=range(len(PAIRS)))
def test_when_several_apply_the_first_counts(routing_key: str, body: bytes | dict[str, Any], code: str) -> None:
    """Two faults in one message, by a key that is limited: the order is the contract's."""
    record = make_record(KEY, KEY_ID, types=("email.*",), lanes=("default",), max_priority="normal")
    assert code_of(body, routing_key, record) == code


def test_the_codes_stand_in_the_order_of_the_contract() -> None:
    """The enumeration is that order; nothing else is a code."""
    order = (
        "missing_key malformed_key unknown_key revoked_key expired_key bad_type forbidden too_large invalid_utf8 "
        "too_deep not_finite invalid_json not_an_object unknown_field unsupported type_mismatch conflicting_fields "
        "invalid_field unknown_lane rate_limited crashed_intake"
    )
    assert [str(code) for code in Code] == order.split()


def test_a_key_in_the_body_is_refused_wherever_it_stands() -> None:
    """A secret in id, tag, name or value would be kept for good: the message is refused instead."""
    for body in ({"payload": {"a": [KEY]}}, {"payload": {KEY: 1}}, {"payload": {"a": f"x{KEY}y"}}, {"id": KEY}):
        assert code_of(body) == "invalid_field"
    assert code_of({"tags": [KEY[:-1]], "payload": {"a": KEY.replace("jd_", "jd-")}}) == "admitted"


def test_defaults_and_the_lane_of_a_type() -> None:
    """What the client left out is filled in; a message's own lane wins over its type's."""
    admitted = submit(b"{}")
    work, event = admitted.work, admitted.event
    assert (work.app, work.type, work.lane, work.priority) == ("shop", JOB_TYPE, "default", "normal")
    assert (work.run, work.n, work.seq, work.payload, work.tags, work.accepted_at) == (1, 1, 1, {}, (), NOW)
    assert (event.app, event.id, event.key_id, event.accepted_at) == ("shop", work.id, KEY_ID, NOW)
    assert submit(b"{}", "report.build").work.lane == "bulk"
    assert submit({"lane": "default"}, "report.build").work.lane == "default"


def test_an_id_is_the_clients_or_a_uuid7() -> None:
    """RFC 9562: 48 bits of milliseconds, version 7, variant 10."""
    import uuid

    assert submit({"id": "order-7"}).work.id == "order-7"
    made = uuid.UUID(submit(b"{}").work.id)
    assert (made.version, made.variant, made.int >> 80) == (7, uuid.RFC_4122, NOW)


PARENT = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"


@pytest.mark.parametrize(
    ("parent", "state", "kept"),
    [
        (PARENT, "a=1", (PARENT, "a=1")),
        (PARENT.encode(), b"a=1", (PARENT, "a=1")),
        (PARENT, None, (PARENT, None)),
        (PARENT, KEY, (PARENT, None)),
        (PARENT, "x" * 513, (PARENT, None)),
        (PARENT, "a\n", (PARENT, None)),
        (PARENT, 5, (PARENT, None)),
        (None, "a=1", None),
        (5, None, None),
        (KEY, None, None),
        (PARENT.upper(), None, None),
        (PARENT + "\n", None, None),
        ("ff" + PARENT[2:], None, None),
        (PARENT.replace("4bf92f3577b34da6a3ce929d0e0e4736", "0" * 32), None, None),
        (PARENT.replace("00f067aa0ba902b7", "0" * 16), None, None),
    ],
)
def test_trace_context_is_kept_only_where_it_is_well_formed(parent: object, state: object, kept: Any) -> None:
    """A header of another form, or one that holds a key, goes no further."""
    trace = read_trace(parent, state)
    assert (None if trace is None else (trace.traceparent, trace.tracestate)) == kept


def test_nothing_of_the_key_is_in_what_goes_on() -> None:
    """Neither the work message nor the event holds the key's secret or its hash."""
    admitted = submit({"payload": {"a": 1}})
    for text in (admitted.work.encode().decode(), admitted.event.model_dump_json(), json.dumps(str(admitted))):
        assert KEY.split("_")[-1] not in text
        assert RECORD.hash not in text
