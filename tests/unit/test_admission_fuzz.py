"""Intake against anything at all: admitted or refused, nothing echoed, nothing lost."""

from __future__ import annotations

import json
from typing import Any

from hypothesis import assume, example, given
from hypothesis import strategies as st

from dispatcher.core.admission import KNOWN_FIELDS
from dispatcher.core.refusals import Refusal
from schemas import PRIORITIES, EventBatch, RetrySpec, WorkMessage
from schemas.events import encode_batches
from tests.unit.samples import KEY, RECORD, RULES, refused, submit
from tests.unit.test_parsing import VALUES

WHOLE = st.characters(exclude_categories=["Cs"])
NAMES = st.text(WHOLE.filter(lambda c: c != "\0"), max_size=5)
STORABLE = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**63), 2**63 - 1)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(WHOLE, max_size=8),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(NAMES, inner, max_size=4),
    max_leaves=12,
)
PAYLOADS = st.dictionaries(NAMES, STORABLE, max_size=4)
CLASS_NAMES = st.lists(st.from_regex(r"\A[A-Za-z_][A-Za-z0-9_.]{0,20}\Z"), max_size=3)
SECONDS = st.floats(0.125, 86_400)
RETRIES = st.fixed_dictionaries(
    {},
    optional={
        "max_attempts": st.integers(1, 100),
        "base": SECONDS,
        "factor": st.floats(1, 10),
        "max_delay": SECONDS,
        "jitter": st.floats(0, 1),
        "on": CLASS_NAMES,
        "never": CLASS_NAMES,
    },
)
BODIES = st.fixed_dictionaries(
    {},
    optional={
        "type": st.just("email.send"),
        "payload": PAYLOADS,
        "id": st.from_regex(r"\A[A-Za-z0-9._-]{1,128}\Z"),
        "priority": st.sampled_from(PRIORITIES),
        "timeout": st.floats(0.1, 86_400),
        "retry": RETRIES,
        "lane": st.sampled_from(sorted(RULES.lanes)),
        "tags": st.lists(st.text(WHOLE, min_size=1, max_size=64), max_size=10),
    },
)


@given(BODIES, st.booleans())
@example(
    {"payload": {"z": -0.0, "tiny": 5e-324, "i": 2**63 - 1, "j": -(2**63), "one": 1.0, "u": "\u2028 😀 \x7f"}}, True
)
@example({"payload": {"$set": {"$state": 1}, "a.b": 1, "": None, "kind": "ended", "v": 2}}, False)
def test_an_admitted_job_arrives_exactly_as_it_was_sent(body: dict[str, Any], ascii_only: bool) -> None:
    """The payload equals what json.loads makes of the body, over the work message's bytes and the event's too."""
    raw = json.dumps(body, ensure_ascii=ascii_only).encode()
    admitted = submit(raw)
    work = WorkMessage.decode(admitted.work.encode())
    assert work == admitted.work
    sent = json.loads(raw)
    # repr tells -0.0 from 0.0 and 1 from 1.0 and True
    assert repr(work.payload) == repr(sent.get("payload", {}))
    assert work.tags == tuple(sent.get("tags", ()))
    assert (work.timeout, work.priority) == (sent.get("timeout"), sent.get("priority", "normal"))
    (event,) = EventBatch.decode(next(encode_batches([admitted.event]))).events
    assert event == admitted.event
    assert repr(event.payload) == repr(work.payload)  # type: ignore[union-attr]
    assert json.loads(json.dumps(sent.get("retry", {}))) == {
        name: list(value) if isinstance(value, tuple) else value
        for name, value in (work.retry or RetrySpec()).model_dump(exclude_none=True).items()
    }


@given(st.text(max_size=20), st.binary(max_size=60))
def test_any_bytes_are_admitted_or_refused(routing_key: str, body: bytes) -> None:
    """Nothing but a refusal leaves intake's decision, whatever stands in key and body."""
    refused(body, routing_key)
    refused(body)


@given(BODIES, st.data())
def test_a_damaged_body_is_admitted_or_refused(body: dict[str, Any], data: st.DataObject) -> None:
    """Valid bodies with bytes taken out, put in and turned over."""
    raw = bytearray(json.dumps(body, ensure_ascii=False).encode())
    for _ in range(data.draw(st.integers(1, 4))):
        at = data.draw(st.integers(0, len(raw)))
        raw[at : at + data.draw(st.integers(0, 3))] = data.draw(
            st.sampled_from(
                [b"", b"\xff", b"{", b"]", b'"', b"\\", b",", b"NaN", b"1e999", b"null", b"\\ud800", b"9" * 30]
            )
        )
    refused(bytes(raw))


@given(st.dictionaries(st.sampled_from([*KNOWN_FIELDS, "nope"]), VALUES, max_size=5))
def test_any_values_in_known_fields_are_admitted_or_refused(body: dict[str, Any]) -> None:
    """Valid JSON with every kind of value in the wrong place."""
    refused(body)
    refused({"retry": body})
    refused({"payload": body})


SECRETS = st.text("GHJKQVWXYZ0123456789", min_size=10, max_size=40)


def _hiding_places(secret: str) -> list[tuple[str, bytes]]:
    """Messages that intake refuses, with the secret in every place that a client might put one."""
    bodies: list[Any] = [
        {secret: 1},
        {"retry": {secret: 1}},
        {"id": secret + " "},
        {"id": [secret]},
        {"priority": secret},
        {"lane": secret},
        {"type": secret},
        {"timeout": secret},
        {"timeout": {secret: secret}},
        {"tags": [secret * 7]},
        {"tags": {secret: secret}},
        {"retry": {"on": [secret + "!"]}},
        {"retry": {"base": secret}},
        {"retry": secret},
        {"delay": secret},
        {"callback": {"url": secret}},
        {"payload": secret},
        {"payload": {secret: {"\0": secret}}},
        {"payload": {secret: 2**70}},
        {"payload": {secret: "\ud800"}},
        {"payload": {secret + "\ud800": 1}},
        {"payload": {secret: KEY}},
        {"id": None, "payload": secret},
        [secret],
        secret,
    ]
    raw = [json.dumps(body).encode() for body in bodies]
    text = secret.encode()
    broken = [
        b'{"%s":' % text,
        b"{%s: NaN}" % text,
        b'{"a": %s}' % text,
        b'{"a":"\\q%s"}' % text,
        b'"%s\n"' % text,
        b'{"%s":1,"%s":2}' % (text, text),
        b'{"payload":{"%s":1,"%s":2}}' % (text, text),
        b'{"payload":{"%s":NaN}}' % text,
        b'{"%s":' % text * 100,
        b"\xff" + text,
        text * 20_000,
    ]
    return [("email.send", body) for body in raw + broken] + [(secret, b"{}"), (secret.lower() + "!", b"{}")]


@given(SECRETS)
def test_no_refusal_repeats_anything_of_the_input(secret: str) -> None:
    """A key may have been put anywhere: no sentence echoes a value, a name or a piece of either."""
    assume(not secret.isdecimal())
    for routing_key, body in _hiding_places(secret):
        refusal = refused(body, routing_key)
        assert refusal is not None, body[:80]
        for text in (refusal.sentence, str(refusal), repr(refusal)):
            assert secret not in text
            assert secret.lower() not in text.lower(), body[:80]


@given(SECRETS)
def test_a_limited_key_is_refused_without_an_echo(secret: str) -> None:
    """Refusals that speak of the key's limits name the limits, not what was sent."""
    from dataclasses import replace

    record = replace(RECORD, types=("email.*",), lanes=("default",), max_priority="low")
    for body in ({"lane": "bulk", "tags": [secret]}, {"priority": "high", "id": secret}):
        refusal = refused(body, record=record)
        assert isinstance(refusal, Refusal)
        assert secret not in str(refusal)
