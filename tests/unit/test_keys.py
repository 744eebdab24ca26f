"""API keys: form, checksum, scopes, expiry, and taking them out of texts."""

from __future__ import annotations

import hashlib
import json
import re
import time
import zlib
from random import Random

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from dispatcher.core import keys
from schemas import PRIORITIES
from tests.unit.samples import KEY, KEY_ID, NOW, RECORD, make_key, make_record

SEEDS = st.integers(0, 10**9)


@given(SEEDS, st.from_regex(r"\A[a-z0-9]{1,16}\Z"))
def test_a_generated_key_has_the_form_of_the_contract(seed: int, env: str) -> None:
    """jd_<env>_<keyid>_<30 base62><6 base62 CRC32>, three underscores, and it parses to its id."""
    key, key_id = make_key(seed, env)
    assert re.fullmatch(rf"jd_{env}_{key_id}_[0-9A-Za-z]{{30}}[0-9A-Za-z]{{6}}", key)
    assert key.count("_") == 3
    assert keys.parse(key) == keys.parse(key.encode()) == key_id


def test_the_checksum_is_the_crc32_in_base62() -> None:
    """Worked out independently: digits, then capitals, then small letters, most significant first."""
    digits = "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"
    value = 0
    for character in KEY[-6:]:
        value = value * 62 + digits.index(character)
    assert value == zlib.crc32(KEY[:-6].encode())
    assert keys.base62(0, 6) == "000000"
    assert keys.base62(2**32 - 1, 6) == "4gfFC3"
    assert keys.base62(61, 2) == "0z"


@given(SEEDS, st.data())
def test_one_changed_character_is_malformed(seed: int, data: st.DataObject) -> None:
    """A CRC32 finds every change of a single character, wherever it is."""
    key, _ = make_key(seed)
    at = data.draw(st.integers(0, len(key) - 1))
    other = data.draw(st.sampled_from(keys.BASE62 + "_- \né").filter(lambda c: c != key[at]))
    assert keys.parse(key[:at] + other + key[at + 1 :]) is None


@given(SEEDS, st.data())
def test_a_key_cut_or_lengthened_is_malformed(seed: int, data: st.DataObject) -> None:
    """No part of a key is a key, nor is a key with something around it."""
    key, _ = make_key(seed)
    assert keys.parse(key[: data.draw(st.integers(0, len(key) - 1))]) is None
    extra = data.draw(st.text(max_size=3).filter(bool))
    assert keys.parse(key + extra) is None
    assert keys.parse(extra + key) is None


@given(st.one_of(st.text(), st.binary(), st.integers(), st.none(), st.floats(), st.lists(st.text())))
def test_no_other_value_is_a_key(value: object) -> None:
    """Whatever an AMQP header can hold is looked at without an error."""
    assert keys.parse(value) is None


def test_two_keys_are_never_alike() -> None:
    """The secret and the id come from the choice that is passed in, 42 characters of it."""
    drawn: list[str] = []

    def choice(alphabet: str) -> str:
        drawn.append(alphabet)
        return alphabet[len(drawn) % 62]

    key, key_id = keys.generate("live", choice)
    assert drawn == [keys.BASE62] * (keys.KEY_ID_LENGTH + keys.SECRET_LENGTH)
    assert key != make_key()[0]
    assert len(key_id) == keys.KEY_ID_LENGTH


def test_only_the_sha256_is_kept() -> None:
    """The digest is plain SHA-256 of the whole key; the record's repr says nothing of the secret."""
    assert RECORD.hash == hashlib.sha256(KEY.encode()).hexdigest()
    assert keys.matches(RECORD, KEY)
    assert not keys.matches(RECORD, make_key(1)[0])
    assert KEY.split("_")[3] not in repr(RECORD)


# ---- type patterns, against a reference that turns them into regular expressions

WORD = st.sampled_from(["a", "b", "ab", "0", "_", "-"])
PATTERNS = st.lists(st.one_of(WORD, st.sampled_from(["*", "#"])), min_size=1, max_size=5)
TYPES = st.lists(WORD, min_size=1, max_size=5)


def reference(pattern: list[str], words: list[str]) -> bool:
    """AMQP 0-9-1, topic exchanges: * is exactly one word, # is zero or more."""
    translate = {"*": r"(?:/[^/]+)", "#": r"(?:/[^/]+)*"}
    regex = "".join(translate.get(part, "/" + re.escape(part)) for part in pattern)
    return re.fullmatch(regex, "".join("/" + word for word in words)) is not None


@given(PATTERNS, TYPES)
@example(["#"], ["a"])
@example(["a", "#"], ["a"])
@example(["#", "a"], ["a"])
@example(["#", "#"], ["a"])
@example(["*", "#"], ["a"])
@example(["a", "#", "b"], ["a", "b"])
@example(["#", "*", "#", "*"], ["a"])
@example(["#", "b", "#"], ["a", "b", "ab"])
def test_patterns_match_as_a_topic_exchange_does(pattern: list[str], words: list[str]) -> None:
    """The same answer as an independent reading of the protocol."""
    text = ".".join(pattern)
    expected = reference(pattern, words)
    assert keys.type_matches(keys.split_type_pattern(text), tuple(words)) is expected
    assert make_record(KEY, KEY_ID, types=(text,)).allows_type(".".join(words)) is expected
    assert make_record(KEY, KEY_ID, types=("zzz", text)).allows_type(".".join(words)) is expected


@given(TYPES)
def test_a_type_matches_itself_and_a_longer_one_does_not(words: list[str]) -> None:
    """Generated pairs seldom agree, so the plain case is tested apart."""
    text = ".".join(words)
    record = make_record(KEY, KEY_ID, types=(text,))
    assert record.allows_type(text)
    assert not record.allows_type(text + ".a")
    assert not record.allows_type(text + "a")
    assert make_record(KEY, KEY_ID, types=(".".join("*" * len(words)),)).allows_type(text)


def test_a_long_pattern_does_not_take_for_ever() -> None:
    """The longest type of fifty words against patterns of many # is answered."""
    began = time.process_time()
    for pattern in (
        "#.a.#.b.#",
        ".".join("#" * 6) + ".z",
        ".".join(["#", "*"] * 6) + ".z",
        ".".join(["#.a"] * 8) + ".b",
    ):
        assert not make_record(KEY, KEY_ID, types=(pattern,)).allows_type(".".join(["a"] * 50)), pattern
    assert time.process_time() - began < 1


@pytest.mark.parametrize("pattern", ["", ".", "a.", "a..b", "A", "a*", "#a", "a b", "a.**", "é", "a\n"])
def test_a_malformed_pattern_is_refused(pattern: str) -> None:
    """At the creation of a key; the sentence says what a pattern is made of."""
    with pytest.raises(ValueError, match=r"words of \[a-z0-9_-\]"):
        keys.split_type_pattern(pattern)


def test_without_scopes_everything_is_allowed() -> None:
    """Empty types and lanes mean all, no highest priority means any."""
    assert RECORD.allows_type("any.thing")
    assert RECORD.allows_lane("anywhere")
    assert all(map(RECORD.allows_priority, PRIORITIES))


@given(st.sampled_from(PRIORITIES), st.sampled_from(PRIORITIES))
def test_a_highest_priority_allows_itself_and_what_is_below(highest: str, asked: str) -> None:
    """critical > high > normal > low > background."""
    rank = {"critical": 4, "high": 3, "normal": 2, "low": 1, "background": 0}
    record = make_record(KEY, KEY_ID, max_priority=highest)
    assert record.allows_priority(asked) is (rank[asked] <= rank[highest])


def test_lanes_are_exact() -> None:
    """A lane is allowed by its whole name."""
    record = make_record(KEY, KEY_ID, lanes=("bulk", "slow"))
    assert [record.allows_lane(lane) for lane in ("bulk", "slow", "default", "bul", "")] == [
        True,
        True,
        False,
        False,
        False,
    ]


def test_a_key_expires_at_its_time() -> None:
    """Usable up to the millisecond before, not at it; revoked counts before expired."""
    record = make_record(KEY, KEY_ID, expires_at=NOW)
    assert [record.state(now) for now in (NOW - 1, NOW, NOW + 1)] == ["active", "expired", "expired"]
    assert make_record(KEY, KEY_ID, expires_at=NOW, revoked=True).state(NOW + 1) == "revoked"
    assert make_record(KEY, KEY_ID, revoked=True).state(0) == "revoked"
    assert RECORD.state(2**62) == "active"


# ---- taking keys out of texts


@given(SEEDS, st.binary(max_size=30), st.binary(max_size=30))
@example(0, b"jd_live_", b"")
@example(0, b"jd_", b"_jd_")
@example(0, b"x", b"y")
def test_a_key_is_found_and_taken_out_anywhere(seed: int, before: bytes, after: bytes) -> None:
    """In the middle of any bytes, the rest of which stays."""
    key = make_key(seed)[0].encode()
    assert keys.holds_key(before + key + after)
    cleaned = keys.redact(before + key + after)
    assert key.split(b"_")[3][:30] not in cleaned
    assert not keys.holds_key(cleaned)
    assert cleaned.startswith(before[:-1]) or b"jd_" in before


def written(text: str, chosen: set[str]) -> str:
    """A text as it stands within a JSON string, these characters as escapes."""
    return "".join(f"\\u{ord(c):04x}" if c in chosen else json.dumps(c)[1:-1] for c in text)


@given(st.lists(st.sets(st.sampled_from(["j", "_", "u", "0", "1", "5", "7", "c", "\\", KEY[-9]])), max_size=5))
@example([{"j"}])
@example([{"u"}, set()])
@example([{KEY[-9]}, {"\\"}])
@example([{KEY[-9]}, {"u"}, {"u", "\\"}])
def test_a_key_escaped_many_times_is_found_and_taken_out_whole(levels: list[set[str]]) -> None:
    """JSON within JSON: what is left of it does not read as a key, however often it is read."""
    hidden = KEY
    for chosen in levels:
        hidden = written(hidden, chosen)
    for text in (hidden, json.dumps({"a": 1, KEY: 2}) + hidden):
        data = text.encode()
        assert keys.holds_key(data)
        cleaned = keys.redact(data)
        assert not keys.holds_key(cleaned)
        assert KEY[20:] not in cleaned.decode()


def test_a_text_without_an_escaped_key_keeps_its_escapes() -> None:
    """Only what would hide a key is undone."""
    body = b'{"a":"\\u0041 \\"quoted\\" \\\\u0041","k":"%s"}'
    assert keys.redact(body % KEY.encode()) == body % b"[redacted key]"


def test_escapes_within_escapes_cost_no_more_than_they_are_long() -> None:
    """A hostile body of the full size, each escape hidden by the one before it."""
    began = time.process_time()
    for data in (b"\\" + b"u005c" * 52_000 + b"u006a", b"\\u0075" * 43_000, b"\\u" + b"\\u0030" * 43_000):
        assert not keys.holds_key(data)
    assert time.process_time() - began < 2


@given(st.binary(max_size=60))
def test_other_bytes_stay_as_they_are(data: bytes) -> None:
    """Nothing but keys is taken out."""
    assert not keys.holds_key(data)
    if b"jd_" not in data:
        assert keys.redact(data) == data


def test_a_key_with_a_wrong_checksum_is_redacted_but_is_no_key() -> None:
    """A mistyped key is nearly a secret: it goes, but a message is not refused for it."""
    wrong = (KEY[:-1] + ("a" if KEY[-1] != "a" else "b")).encode()
    assert not keys.holds_key(wrong)
    assert wrong not in keys.redact(b"<" + wrong + b">")
    assert keys.redact(b"jd_short jd_a_b_c") == b"jd_short jd_a_b_c"


def test_several_keys_are_all_taken_out() -> None:
    """Side by side and apart."""
    both = [make_key(seed)[0].encode() for seed in (1, 2)]
    for glue in (b" ", b"", b"_", b"\n"):
        cleaned = keys.redact(glue.join(both))
        assert not any(key.split(b"_")[3] in cleaned for key in both)


def test_choice_decides_alone() -> None:
    """The same choices give the same key: there is no other source of chance."""
    assert keys.generate("live", Random(5).choice) == keys.generate("live", Random(5).choice)
