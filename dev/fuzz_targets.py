"""What is fuzzed, and what must hold for any input: intake's decision on a message, the recorder's reading of events.

Each target returns in a word what became of the input, and raises whatever should not have happened.
"""

from __future__ import annotations

import ast
import inspect
import json
import re
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import cache
from random import Random
from types import ModuleType
from typing import Any

import bson
from bson.codec_options import CodecOptions, DatetimeConversion
from bson.errors import BSONError
from pydantic import ValidationError
from pydantic_core._pydantic_core import list_all_errors
from pymongo import InsertOne, UpdateOne
from pymongo.errors import DocumentTooLarge

from dispatcher.core import admission, keys, parsing, refusals
from dispatcher.core.admission import Admitted, Rules, Submission, admit, authenticate, identify
from dispatcher.core.history import Document, document_id, merge
from dispatcher.core.parsing import unstorable
from dispatcher.core.refusals import Refusal
from dispatcher.core.types import TypeTable
from dispatcher.edges.mongo.jobs import _operation, from_bson
from schemas import PRIORITIES, Event, EventBatch, RetrySpec, WorkMessage
from schemas.events import encode_batches

NOW = 1_800_000_000_000
#: A key that no installation knows; the records in `RECORDS` are its own.
KEY, KEY_ID = keys.generate("test", Random(7).choice)
TYPES = TypeTable({"report.build": {"lane": "bulk"}})
RULES = Rules(frozenset({"default", "bulk"}), TYPES, 262_144)
#: The key's record, by what it may do.
_RECORD = keys.KeyRecord(KEY_ID, "shop", keys.digest(KEY), NOW - 1_000)
_TYPES = ("email.*", "#.build")
RECORDS: dict[str, keys.KeyRecord | None] = {
    "all": _RECORD,
    "limited": replace(_RECORD, types=_TYPES, lanes=("default",), max_priority="normal", max_bytes=4_096),
    "revoked": replace(_RECORD, revoked=True),
    "expired": replace(_RECORD, expires_at=NOW),
    "unknown": None,
}

#: What stands in a case for the key, so that no file of the corpus looks as if it held a secret.
PLACEHOLDER = "$KEY"
#: What the store takes for a document that MongoDB cannot hold; its events go to ``unrecorded.v1``.
REFUSED_BY_THE_STORE = (BSONError, OverflowError, DocumentTooLarge, UnicodeError)


class Broken(AssertionError):
    """Something that must hold for any input does not; the sentence says what."""


def must(holds: bool, what: str) -> None:
    """Raise where something does not hold.

    Raises:
        Broken: it does not.
    """
    if not holds:
        raise Broken(what)


@dataclass(frozen=True, slots=True)
class Case:
    """A message for intake: everything that its decision depends on. As a file: a line of JSON, then the body."""

    body: bytes
    routing_key: str = "email.send"
    api_key: Any = PLACEHOLDER
    record: str = "all"
    traceparent: Any = None
    tracestate: Any = None

    def encode(self) -> bytes:
        """The file."""
        default = Case(b"")
        names = ("routing_key", "api_key", "record", "traceparent", "tracestate")
        head = {name: _to_json(getattr(self, name)) for name in names if getattr(self, name) != getattr(default, name)}
        return json.dumps(head).encode() + b"\n" + self.body

    @classmethod
    def decode(cls, file: bytes) -> Case:
        """Read a file back."""
        head, _, body = file.partition(b"\n")
        return cls(body, **{name: _from_json(value) for name, value in json.loads(head).items()})

    def submission(self) -> Submission:
        """The message, with the key in the place of its placeholder."""
        return Submission(
            self.routing_key.replace(PLACEHOLDER, KEY),
            self.body.replace(PLACEHOLDER.encode(), KEY.encode()),
            *(_with_key(value) for value in (self.api_key, self.traceparent, self.tracestate)),
        )


def _to_json(value: Any) -> Any:
    return {"hex": value.hex()} if isinstance(value, bytes) else value


def _from_json(value: Any) -> Any:
    return bytes.fromhex(value["hex"]) if isinstance(value, dict) and value.keys() == {"hex"} else value


def _with_key(value: Any) -> Any:
    if isinstance(value, str):
        return value.replace(PLACEHOLDER, KEY)
    return value.replace(PLACEHOLDER.encode(), KEY.encode()) if isinstance(value, bytes) else value


# ---- intake


def intake(file: bytes) -> str:
    """The code of the refusal of a case, or ``admitted``."""
    case = Case.decode(file)
    message = case.submission()
    _check_redaction(message.body)
    try:
        identify(message.api_key)
        record = authenticate(message.api_key, RECORDS[case.record], NOW)
        admitted = admit(message, record, RULES, NOW, 2**74 - 1)
    except Refusal as refusal:
        _check_silence(message, refusal)
        return str(refusal.code)
    _check_admitted(message, record, admitted)
    return "admitted"


def _check_silence(message: Submission, refusal: Refusal) -> None:
    """A refusal's sentence has no word of the input, but for those that we say ourselves."""
    spoken = re.findall(r"[^\W\d_]{4,}", refusal.sentence.lower())
    heard = (
        f"{message.body!r} {message.body.decode(errors='replace')} {message.routing_key} {message.api_key!r}".lower()
    )
    strange = [word for word in spoken if word not in _vocabulary() and word in heard]
    must(not strange, f"the refusal {refusal.code} echoes the input: {strange}")
    for secret in (KEY, KEY_ID, *KEY.split("_")[2:]):
        must(secret not in f"{refusal}{refusal!r}", f"the refusal {refusal.code} holds a piece of the key")


@cache
def _vocabulary() -> frozenset[str]:
    """Every word that our sentences, pydantic's and the JSON parser's are made of."""
    texts = [error["message_template_python"] for error in list_all_errors()]
    modules: tuple[ModuleType, ...] = (admission, parsing, refusals, keys, json.decoder)
    for module in modules:
        for node in ast.walk(ast.parse(inspect.getsource(module))):
            if isinstance(node, ast.Constant) and isinstance(node.value, str):
                texts.append(node.value)
    texts += [*admission.KNOWN_FIELDS, *RetrySpec.model_fields, *PRIORITIES, *RULES.lanes]
    return frozenset(re.findall(r"[^\W\d_]{4,}", " ".join(texts).lower()))


def _check_redaction(body: bytes) -> None:
    """What goes to ``rejected`` holds no key, neither as it stands nor as JSON would be read."""
    cleaned = keys.redact(body)
    must(KEY.encode() not in cleaned, "the redacted body holds the key")
    must(not keys.holds_key(cleaned), "the redacted body holds a key")
    try:
        value = json.loads(cleaned)
    except (ValueError, RecursionError):
        return
    must(not _strings_hold_a_key(value), "the redacted body, read as JSON, holds the key")


def _strings_hold_a_key(value: Any) -> bool:
    found, level = False, [value]
    while level and not found:
        found = any(KEY in reading for text in level if isinstance(text, str) for reading in _readings(text))
        names = [name for item in level if isinstance(item, dict) for name in item]
        level = names + [
            inner
            for item in level
            if isinstance(item, (dict, list))
            for inner in (item.values() if isinstance(item, dict) else item)
        ]
    return found


def _readings(text: str) -> Iterator[str]:
    """A text, and what it is where it was taken from JSON within JSON."""
    for _ in range(4):
        yield text
        try:
            text = json.loads(f'"{text}"')
        except ValueError:
            return


def _check_admitted(message: Submission, record: keys.KeyRecord, admitted: Admitted) -> None:
    """The job is the message's, fits its key, and can be carried and stored as it is."""
    work, event = admitted.work, admitted.event
    sent = json.loads(message.body)
    must(repr(work.payload) == repr(sent.get("payload", {})), "the payload is not the one that was sent")
    must(not _strings_hold_a_key([sent, work.id, repr(work.trace)]), "an admitted job holds the key")
    must(work.lane in RULES.lanes and record.allows_lane(work.lane), "the lane is not allowed")
    must(record.allows_priority(work.priority), "the priority is not allowed")
    must(record.allows_type(work.type) and admission.is_type(work.type), "the type is not allowed")
    must(repr(WorkMessage.decode(work.encode())) == repr(work), "the work message is read back differently")
    (body,) = encode_batches([event])
    (back,) = EventBatch.decode(body).events
    must(repr(back) == repr(event), "the event is read back differently")
    must(unstorable(work.payload) is None, "the payload cannot be stored")
    must(events(body) == "recorded", "the event cannot be recorded")


# ---- events


def events(body: bytes) -> str:
    """What becomes of a message in ``history.v1``: ``refused``, ``unstorable`` (some of it) or ``recorded``."""
    try:
        batch = EventBatch.decode(body)
    except ValidationError as error:
        # what the recorder says about it in a header
        error.errors(include_input=False, include_url=False, include_context=False)
        return "refused"
    jobs: defaultdict[str, list[Event]] = defaultdict(list)
    for event in batch.events:
        jobs[document_id(event.app, event.id)].append(event)
    stored = [_recorded(of_one) for of_one in jobs.values()]
    return "recorded" if all(stored) else "unstorable"


def _recorded(of_one: list[Event]) -> bool:
    """Merge a job's events; whether the document can be stored."""
    before = repr(of_one)
    document = merge(None, of_one)
    must(_same(merge(document, of_one), document), "merging a second time changes the document")
    apart: Document | None = None
    for event in of_one:
        apart = merge(apart, [event])
    must(_same(apart, document), "one by one the events give another document")
    must(repr(of_one) == before, "merging changes an event")
    contents = [document.get("payload"), document.get("result")]
    try:
        stored = _stored(None, document)
    except REFUSED_BY_THE_STORE:
        must(any(map(unstorable, contents)), "a document cannot be stored, and not for its payload or result")
        return False
    must(_same(from_bson(stored), document), "the document is read back differently")
    for at in range(1, len(of_one)):
        _check_update(of_one, at)
    for again in encode_batches(of_one):
        EventBatch.decode(again)
    return True


def _check_update(of_one: list[Event], at: int) -> None:
    """Written in two steps the document is the same, but for its revision; unchanged, it is not written at all."""
    try:
        old = _stored(None, merge(None, of_one[:at]))
    except REFUSED_BY_THE_STORE:
        return
    read = from_bson({name: value for name, value in old.items() if name != "payload"})
    new = _stored({**old}, merge(read, of_one[at:]), read)
    whole = merge(None, of_one)
    must(_same({**from_bson(new), "rev": 0}, {**whole, "rev": 0}), "written in two steps the document differs")


def _stored(old: Document | None, document: Document, read: Document | None = None) -> Document:
    """What MongoDB holds after the write that the store makes of a document."""
    operation = _operation(read, document)
    if operation is None:
        assert old is not None
        return old
    if isinstance(operation, InsertOne):
        return _through_bson(operation._doc)
    assert isinstance(operation, UpdateOne)
    assert old is not None
    update: dict[str, Any] = operation._doc  # type: ignore[assignment]
    must(update["$set"]["rev"] == old["rev"] + 1, "a write does not move the revision")
    kept = {name: value for name, value in old.items() if name not in update.get("$unset", {})}
    return kept | _through_bson(update["$set"])


def _through_bson(document: Any) -> Document:
    encoded = bson.encode(document)
    return bson.decode(encoded, CodecOptions(tz_aware=True, datetime_conversion=DatetimeConversion.DATETIME_MS))


def _same(one: Any, other: Any) -> bool:
    """Equal, where NaN is NaN."""
    return bool(one == other) or _canonical(one) == _canonical(other)


def _canonical(value: Any) -> Any:
    if isinstance(value, dict):
        return {name: _canonical(inner) for name, inner in value.items()}
    if isinstance(value, (list, tuple)):
        return [_canonical(inner) for inner in value]
    return repr(value) if isinstance(value, float) else value


TARGETS = {"intake": intake, "events": events}
