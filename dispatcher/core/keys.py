"""API keys: their form, their checksum, their scopes, and what may be said of them.

A key is ``jd_<env>_<keyid>_<30 base62><6 base62 CRC32>``. The CRC32 (RFC 1952) of everything before it lets garbage
be refused without a look-up; the id finds the record; only the SHA-256 of the whole key is stored, which is right
for a secret of 178 random bits (a slow hash guards passwords that can be guessed).
"""

from __future__ import annotations

import hashlib
import hmac
import re
import zlib
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field, replace
from typing import Any, Literal

from schemas import PRIORITIES

#: The header of a message in which its key comes.
KEY_HEADER = "x-api-key"

BASE62 = "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"
SECRET_LENGTH = 30
CHECKSUM_LENGTH = 6
KEY_ID_LENGTH = 12

_KEY = re.compile(r"jd_[a-z0-9]{1,16}_([0-9A-Za-z]{1,32})_[0-9A-Za-z]{36}")
_KEY_ANYWHERE = re.compile(rb"jd_[a-z0-9]{1,16}_[0-9A-Za-z]{1,32}_[0-9A-Za-z]{36}")
_ESCAPED = re.compile(rb"\\(?:u00([3-7][0-9A-Fa-f])|([\"\\/]))")
#: How often a text is unescaped; each time costs its length, and nobody writes JSON within JSON deeper than this.
_ESCAPED_WITHIN = 16
_REDACTED = b"[redacted key]"

APP_PATTERN = re.compile(r"[a-z0-9_-]{1,64}")
TYPE_PATTERN = re.compile(r"(?:[a-z0-9_-]+|\*|#)(?:\.(?:[a-z0-9_-]+|\*|#))*")

KeyState = Literal["active", "retiring", "revoked", "expired"]
#: States in which a key is accepted.
LIVE: tuple[KeyState, ...] = ("active", "retiring")


@dataclass(frozen=True, slots=True)
class KeyRecord:
    """What is known of a key; never its secret.

    ``types`` are patterns like those of an AMQP topic binding (``*`` one word, ``#`` any number of words); an empty
    ``types`` or ``lanes`` means all. ``expires_at`` and ``created_at`` are milliseconds since the epoch. A rotated key
    names its successor in ``replaced_by``, which names it in ``replaces``; ``lifetime`` is for how long it was made,
    before its rotation brought ``expires_at`` forward.
    """

    id: str
    app: str
    hash: str
    created_at: int
    types: tuple[str, ...] = ()
    lanes: tuple[str, ...] = ()
    max_priority: str | None = None
    max_bytes: int | None = None
    expires_at: int | None = None
    revoked: bool = False
    replaces: str | None = None
    replaced_by: str | None = None
    lifetime: int | None = None
    patterns: tuple[tuple[str, ...], ...] = field(default=(), init=False, compare=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "patterns", tuple(map(split_type_pattern, self.types)))

    def state(self, now: int) -> KeyState:
        """``active``, ``retiring`` (rotated, and still accepted), ``revoked`` or ``expired`` at ``now``."""
        if self.revoked:
            return "revoked"
        if self.expires_at is not None and now >= self.expires_at:
            return "expired"
        return "active" if self.replaced_by is None else "retiring"

    def expires_within(self, now: int, ms: float) -> bool:
        """Whether it is accepted at ``now``, but will not be after so many milliseconds."""
        return self.expires_at is not None and self.state(now) in LIVE and self.expires_at - now <= ms

    def allows_type(self, job_type: str) -> bool:
        """Whether jobs of this type may be published with the key."""
        if not self.patterns or job_type in self.types:
            return True
        words = tuple(job_type.split("."))
        return any(type_matches(pattern, words) for pattern in self.patterns)

    def allows_lane(self, lane: str) -> bool:
        """Whether jobs may go to this lane."""
        return not self.lanes or lane in self.lanes

    def allows_priority(self, priority: str) -> bool:
        """Whether the priority is not above the key's highest."""
        return self.max_priority is None or _rank(priority) >= _rank(self.max_priority)


def _rank(priority: str) -> int:
    return PRIORITIES.index(priority)


def split_type_pattern(pattern: str) -> tuple[str, ...]:
    """The words of a topic pattern.

    Raises:
        ValueError: the pattern is not words, ``*`` and ``#`` joined by dots.
    """
    if not TYPE_PATTERN.fullmatch(pattern):
        raise ValueError(
            f'type pattern {pattern!r} is not valid: use words of [a-z0-9_-] joined by dots, "*" for one word '
            'and "#" for any number of words'
        )
    return tuple(pattern.split("."))


def type_matches(pattern: tuple[str, ...], words: tuple[str, ...]) -> bool:
    """Whether a type's words match a pattern's, as a topic exchange would say."""
    # how much of the pattern may be used up by the words so far; trying each # apart would take for ever
    places = _past_any_number(pattern, {0})
    for word in words:
        following = {at for at in places if at < len(pattern) and pattern[at] == "#"}
        following |= {at + 1 for at in places if at < len(pattern) and pattern[at] in ("*", word)}
        places = _past_any_number(pattern, following)
    return len(pattern) in places


def _past_any_number(pattern: tuple[str, ...], places: set[int]) -> set[int]:
    """These places, and those behind each ``#`` that stands at one of them, for it may be no word at all."""
    for at, part in enumerate(pattern):
        if part == "#" and at in places:
            places.add(at + 1)
    return places


def checksum(text: str) -> str:
    """Six base62 digits of the CRC32 of ``text``."""
    return base62(zlib.crc32(text.encode()), CHECKSUM_LENGTH)


def base62(number: int, length: int) -> str:
    """``number`` in base62, padded with zeros to ``length`` digits."""
    digits = ""
    for _ in range(length):
        number, rest = divmod(number, 62)
        digits = BASE62[rest] + digits
    return digits


def generate(env: str, choice: Callable[[str], str]) -> tuple[str, str]:
    """A new key and its id.

    Args:
        env: the middle part, ``[a-z0-9]``.
        choice: a cryptographically strong ``choice`` (``secrets.choice``).
    """
    key_id = "".join(choice(BASE62) for _ in range(KEY_ID_LENGTH))
    body = f"jd_{env}_{key_id}_" + "".join(choice(BASE62) for _ in range(SECRET_LENGTH))
    return body + checksum(body), key_id


def successor(old: KeyRecord, key: str, key_id: str, now: int, lifetime: int | None) -> KeyRecord:
    """The record of the key that replaces one: the same application and scopes, for ``lifetime`` milliseconds."""
    return replace(
        old,
        id=key_id,
        hash=digest(key),
        created_at=now,
        expires_at=None if lifetime is None else now + lifetime,
        lifetime=lifetime,
        replaces=old.id,
        replaced_by=None,
    )


def retired(old: KeyRecord, new_id: str, until: int) -> KeyRecord:
    """The record of a key whose successor was made: it ends at ``until``, or before if it would have ended anyway."""
    expires_at = until if old.expires_at is None else min(until, old.expires_at)
    return replace(old, expires_at=expires_at, replaced_by=new_id)


def predecessors(key_id: str, records: Iterable[KeyRecord]) -> list[KeyRecord]:
    """The keys that a key replaced, and those that they replaced, the nearest first.

    A key that names no successor was not replaced: the rotation died before that, and nobody has what it made.
    """
    found: dict[str, KeyRecord] = {}
    by_id = {record.id: record for record in records}
    record = by_id.get(key_id)
    while record is not None and record.replaces is not None and record.replaces not in found:
        record = by_id.get(record.replaces)
        if record is None or record.replaced_by is None:
            break
        found[record.id] = record
    return list(found.values())


def parse(key: object) -> str | None:
    """The key's id, or None where form or checksum are wrong. Accepts what an AMQP header may hold."""
    if isinstance(key, (bytes, bytearray)):
        key = bytes(key).decode("latin-1")
    if not isinstance(key, str):
        return None
    match = _KEY.fullmatch(key)
    if match is None or checksum(key[:-CHECKSUM_LENGTH]) != key[-CHECKSUM_LENGTH:]:
        return None
    return match[1]


def digest(key: str) -> str:
    """What is stored of a key: its SHA-256 in hexadecimal."""
    return hashlib.sha256(key.encode()).hexdigest()


#: Compared with where there is no record, so that an unknown id costs what a wrong secret does; no key has this hash.
_NOBODY = "0" * 64


def matches(record: KeyRecord | None, key: str) -> bool:
    """Whether this is the record's key, compared in constant time; where there is no record the work is the same."""
    same = hmac.compare_digest(_NOBODY if record is None else record.hash, digest(key))
    return same and record is not None


def holds_key(data: bytes) -> bool:
    """Whether a whole key, with a right checksum, stands somewhere in ``data``, a JSON text."""
    return any(parse(match[0]) is not None for match in _look_for_keys(_unescaped(data)))


def find_keys(data: bytes) -> Iterator[str]:
    """Whole keys, with a right checksum, in ``data``, also where JSON escaped them; for nobody's eyes."""
    for match in _look_for_keys(_unescaped(data)):
        if parse(match[0]) is not None:
            yield match[0].decode()


def redact(data: bytes) -> bytes:
    """``data`` with everything that looks like a key taken out; where one was escaped, without escapes."""
    cleaned = _without_keys(data)
    plain = _unescaped(cleaned)
    found = next(_look_for_keys(plain), None)
    return cleaned if found is None else _without_keys(plain)


def without_keys(value: Any) -> Any:
    """A value of texts, numbers, lists and maps, with whatever looks like a key taken out of its texts."""
    if isinstance(value, str):
        return redact(value.encode(errors="replace")).decode()
    if isinstance(value, dict):
        return {name: without_keys(item) for name, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [without_keys(item) for item in value]
    return value


def _without_keys(data: bytes) -> bytes:
    parts: list[bytes] = []
    done = 0
    for match in _look_for_keys(data):
        if match.start() >= done:
            parts += (data[done : match.start()], _REDACTED)
        done = max(done, match.end())
    return b"".join((*parts, data[done:]))


def _unescaped(data: bytes) -> bytes:
    """``data`` with JSON's escapes of letters and digits undone, which would hide a key; also in JSON within JSON."""
    for _ in range(_ESCAPED_WITHIN):
        if b"\\u00" not in data:
            break
        data, found = _ESCAPED.subn(_unescape, data)
        if not found:
            break
    return data


def _unescape(match: re.Match[bytes]) -> bytes:
    return match[2] or bytes([int(match[1], 16)])


def _look_for_keys(data: bytes) -> Iterator[re.Match[bytes]]:
    """Whatever looks like a key; two may overlap, since one may begin inside what looks like another's secret."""
    at = data.find(b"jd_")
    while at >= 0:
        if match := _KEY_ANYWHERE.match(data, at):
            yield match
        at = data.find(b"jd_", at + 1)
