"""Intake's decision on one message: authenticate, authorise, validate, route.

Order (contract): the key's codes, ``bad_type``, ``forbidden``, ``too_large``, the body's codes, the fields' codes,
``unknown_lane``, and ``forbidden`` again for lane and priority, which stand in the body.
"""

from __future__ import annotations

import difflib
import math
import re
from dataclasses import dataclass
from typing import Any

from pydantic import ValidationError

from dispatcher.core import keys, timing
from dispatcher.core.ids import uuid7
from dispatcher.core.parsing import parse_body, unstorable
from dispatcher.core.refusals import Code, Refusal
from dispatcher.core.topology import MAX_MESSAGE_BYTES
from dispatcher.core.types import TypeRules, TypeTable
from schemas import Accepted, GroupSpec, JobRequest, RetrySpec, Trace, UniqueKey, UniqueSpec, WorkMessage, sentence

MAX_TYPE_LENGTH = 100
DEFAULT_LANE = "default"
#: Most bytes of a work message; the rest is for the event beside it and for what later steps add.
MAX_WORK_BYTES = MAX_MESSAGE_BYTES - (1 << 20)

#: Fields of the contract that this version does not build: refused, never ignored.
NOT_BUILT = frozenset({"depends_on", "callback", "template"})
_BUILT = tuple(JobRequest.model_fields)
KNOWN_FIELDS = (*_BUILT, *sorted(NOT_BUILT))
_CONFLICTS = (("delay", "run_at"),)
#: Fields that are objects, and the names of their own fields.
_NESTED: dict[str, tuple[str, ...]] = {
    name: tuple(field.alias or own for own, field in spec.model_fields.items())
    for name, spec in (("retry", RetrySpec), ("group", GroupSpec), ("unique", UniqueSpec))
}
_NAMES = {*KNOWN_FIELDS, *(own for nested in _NESTED.values() for own in nested)}

_TYPE = re.compile(r"[a-z0-9_-]+(?:\.[a-z0-9_-]+)*")
_TRACEPARENT = re.compile(r"(?!ff)[0-9a-f]{2}-(?!0{32})[0-9a-f]{32}-(?!0{16})[0-9a-f]{16}-[0-9a-f]{2}")
_TRACESTATE = re.compile(r"[\x20-\x7e]{1,512}")


@dataclass(frozen=True, slots=True)
class Submission:
    """What arrived: the routing key, the body, and the headers that intake looks at (any AMQP value).

    ``cut_from``: how many bytes the body had, where only its beginning is here.
    """

    routing_key: str
    body: bytes
    api_key: object = None
    traceparent: object = None
    tracestate: object = None
    cut_from: int | None = None

    @property
    def size(self) -> int:
        """Bytes of the body as it was published."""
        return len(self.body) if self.cut_from is None else self.cut_from


@dataclass(frozen=True, slots=True)
class Rules:
    """What the configuration says about admission."""

    lanes: frozenset[str]
    types: TypeTable
    max_body_bytes: int


@dataclass(frozen=True, slots=True)
class Admitted:
    """An accepted job: what goes to the worker, what goes to history, and what is its own before it may go there.

    ``chosen``: whether its client chose its id.
    """

    work: WorkMessage
    event: Accepted
    chosen: bool = False


def identify(api_key: object) -> str:
    """The key's id, before anything is looked up.

    Raises:
        Refusal: ``missing_key`` or ``malformed_key``.
    """
    if api_key is None:
        raise Refusal(Code.MISSING_KEY, "the message has no x-api-key header")
    key_id = keys.parse(api_key)
    if key_id is None:
        raise Refusal(Code.MALFORMED_KEY, "the x-api-key header does not hold a whole API key (form or checksum)")
    return key_id


def authenticate(api_key: object, record: keys.KeyRecord | None, now: int) -> keys.KeyRecord:
    """The record of a key that may be used now.

    Raises:
        Refusal: ``unknown_key``, ``revoked_key`` or ``expired_key``.
    """
    text = bytes(api_key).decode("latin-1") if isinstance(api_key, (bytes, bytearray)) else str(api_key)
    if not keys.matches(record, text) or record is None:
        raise Refusal(Code.UNKNOWN_KEY, "no such API key; see: dispatcher keys list")
    state = record.state(now)
    if state == "revoked":
        raise Refusal(Code.REVOKED_KEY, "this API key was revoked")
    if state == "expired":
        raise Refusal(Code.EXPIRED_KEY, "this API key has expired")
    return record


def is_type(text: str) -> bool:
    """Whether this is a job type: dot-separated words of ``[a-z0-9_-]``, at most 100 characters."""
    return len(text) <= MAX_TYPE_LENGTH and _TYPE.fullmatch(text) is not None


def admit(sub: Submission, key: keys.KeyRecord, rules: Rules, now: int, random_bits: int) -> Admitted:
    """Decide on a message whose key was authenticated.

    Args:
        sub: the message.
        key: the record of its key.
        rules: what the configuration allows.
        now: milliseconds since the epoch; becomes ``accepted_at``.
        random_bits: for an id, where the client chose none.

    Raises:
        Refusal: with the first code that applies.
    """
    job_type = sub.routing_key
    if not is_type(job_type):
        raise Refusal(
            Code.BAD_TYPE,
            "the routing key must be a job type: dot-separated words of [a-z0-9_-], 1 to 100 characters",
        )
    if not key.allows_type(job_type):
        raise Refusal(Code.FORBIDDEN, "this API key may not publish jobs of this type")
    _check_size(sub.size, key, rules)
    body = parse_body(sub.body)
    _check_fields(body, job_type)
    request = _validate(body)
    _check_values(request, sub.body, body)
    due_at = _due(request, now)
    of_type = rules.types.of(job_type)
    lane = request.lane or of_type.lane or DEFAULT_LANE
    if lane not in rules.lanes:
        raise Refusal(Code.UNKNOWN_LANE, f"no such lane; there are: {', '.join(sorted(rules.lanes))}")
    if not key.allows_lane(lane):
        raise Refusal(Code.FORBIDDEN, "this API key may not publish to this lane")
    if not key.allows_priority(request.priority):
        raise Refusal(Code.FORBIDDEN, f"this API key may not publish above priority {key.max_priority}")
    return _admitted(sub, request, key, of_type, lane, due_at, now, random_bits)


def encode_work(work: WorkMessage) -> bytes:
    """The body of an admitted job's work message. It can be longer than what arrived: 1e15 is written out.

    Raises:
        Refusal: ``too_large``, also of a body within the limits of its configuration.
    """
    body = work.encode()
    if len(body) > MAX_WORK_BYTES:
        raise Refusal(
            Code.TOO_LARGE, f"the job takes {len(body)} bytes when written out, at most {MAX_WORK_BYTES} are allowed"
        )
    return body


def _check_size(size: int, key: keys.KeyRecord, rules: Rules) -> None:
    limit = rules.max_body_bytes if key.max_bytes is None else min(key.max_bytes, rules.max_body_bytes)
    if size > limit:
        raise too_large(size, limit)


def too_large(size: int, limit: int) -> Refusal:
    """The refusal of a body with so many bytes."""
    return Refusal(Code.TOO_LARGE, f"the body has {size} bytes, at most {limit} are allowed")


def _nearest(unknown: str, known: tuple[str, ...]) -> str:
    return difflib.get_close_matches(unknown[:100], known, n=1, cutoff=0.0)[0]


def _check_fields(body: dict[str, Any], job_type: str) -> None:
    unknown = [name for name in body if name not in KNOWN_FIELDS]
    if unknown:
        raise Refusal(
            Code.UNKNOWN_FIELD,
            f'the body has an unknown field; its nearest known one is "{_nearest(unknown[0], KNOWN_FIELDS)}"',
        )
    for field, known in _NESTED.items():
        value = body.get(field)
        strange = [name for name in value if name not in known] if isinstance(value, dict) else []
        if strange:
            raise Refusal(
                Code.UNKNOWN_FIELD,
                f'{field} has an unknown field; its nearest known one is "{_nearest(strange[0], known)}"',
            )
    early = [name for name in body if name in NOT_BUILT]
    if early:
        raise Refusal(Code.UNSUPPORTED, f'the field "{early[0]}" is not built yet in this version')
    if "type" in body and isinstance(body["type"], str) and body["type"] != job_type:
        raise Refusal(Code.TYPE_MISMATCH, "the field type differs from the routing key")
    for pair in _CONFLICTS:
        if all(name in body for name in pair):
            raise Refusal(Code.CONFLICTING_FIELDS, f"give {' or '.join(pair)}, not both")


def _validate(body: dict[str, Any]) -> JobRequest:
    nested = [value for value in map(body.get, _NESTED) if isinstance(value, dict)]
    nulls = [name for fields in (body, *nested) for name, value in fields.items() if value is None]
    if nulls:
        raise Refusal(Code.INVALID_FIELD, f"{nulls[0]}: null is not a value; leave the field out")
    try:
        return JobRequest.model_validate(body)
    except ValidationError as error:
        first = error.errors(include_input=False, include_url=False, include_context=False)[0]
        where = ".".join(str(part) for part in first["loc"][:2] if part in _NAMES)
        raise Refusal(Code.INVALID_FIELD, f"{where}: {sentence(first)}") from None


def _check_values(request: JobRequest, raw: bytes, body: dict[str, Any]) -> None:
    reason = unstorable(body)
    if reason:
        raise Refusal(Code.INVALID_FIELD, f"the body {reason}")
    if keys.holds_key(raw):
        raise Refusal(
            Code.INVALID_FIELD,
            "the body holds an API key; a key belongs in the x-api-key header alone. Revoke it",
        )


def _admitted(
    sub: Submission,
    request: JobRequest,
    key: keys.KeyRecord,
    of_type: TypeRules,
    lane: str,
    due_at: int | None,
    now: int,
    random_bits: int,
) -> Admitted:
    payload = request.payload or {}
    common: dict[str, Any] = {
        "app": key.app,
        "id": request.id or uuid7(now, random_bits),
        "type": sub.routing_key,
        "lane": lane,
        "priority": request.priority,
        "accepted_at": now,
        "tags": request.tags,
        "timeout": request.timeout,
        "retry": request.retry,
        "due_at": due_at,
        "group": request.group,
        "expires_at": timing.after(now, request.expires),
        "deadline_at": timing.after(now, request.deadline),
        "trace": read_trace(sub.traceparent, sub.tracestate),
    }
    work = WorkMessage(**common, payload=payload)
    recorded = of_type.payload(payload)
    event = Accepted(
        **common,
        key_id=key.id,
        payload=recorded,
        redacted=recorded is not None and recorded != payload,
        unique=_unique(request.unique, now),
    )
    return Admitted(work, event, request.id is not None)


def _unique(spec: UniqueSpec | None, now: int) -> UniqueKey | None:
    if spec is None:
        return None
    return UniqueKey(key=spec.key, until=spec.until, expires_at=now + math.ceil(spec.window * 1000))


def _due(request: JobRequest, now: int) -> int | None:
    try:
        return timing.due(request, now)
    except ValueError as error:
        raise Refusal(Code.INVALID_FIELD, f"run_at: {error}") from None


def read_trace(traceparent: object, tracestate: object) -> Trace | None:
    """The W3C trace context, where it is well formed; a wrong one is left out, as the standard asks."""
    parent = _text(traceparent)
    if parent is None or not _TRACEPARENT.fullmatch(parent):
        return None
    state = _text(tracestate)
    if state is not None and (not _TRACESTATE.fullmatch(state) or "jd_" in state):
        state = None
    return Trace(traceparent=parent, tracestate=state)


def _text(value: object) -> str | None:
    if isinstance(value, (bytes, bytearray)):
        return bytes(value).decode("latin-1")
    return value if isinstance(value, str) else None
