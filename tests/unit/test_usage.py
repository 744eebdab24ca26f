"""Uses of keys that are gathered, reminders of their end, and floods of bad ones."""

from __future__ import annotations

import hmac
from dataclasses import replace

import pytest

from dispatcher.core import keys
from dispatcher.core.admission import authenticate
from dispatcher.core.refusals import Code, Refusal
from dispatcher.core.usage import DAY_MS, Reminders, Surge, Tally, Usage, expiring
from tests.unit.samples import KEY, KEY_ID, NOW, RECORD, make_key, make_record


def test_uses_are_added_and_taken_once() -> None:
    """One entry a key, with the latest time; what is put back counts with what came since, whatever the order."""
    tally = Tally()
    tally.count("a", "shop", NOW, accepted=1)
    tally.count("a", "shop", NOW - 5, refused=2)
    tally.count("b", "crm", NOW, accepted=1)
    taken = tally.take()
    assert taken == [Usage("a", "shop", 1, 2, NOW), Usage("b", "crm", 1, 0, NOW)]
    assert tally.take() == []
    tally.count("a", "shop", NOW + 9, accepted=4)
    tally.put_back(taken)
    assert tally.take() == [Usage("a", "shop", 5, 2, NOW + 9), Usage("b", "crm", 1, 0, NOW)]


def test_a_key_in_use_is_named_once_a_day() -> None:
    """Within the days before its end, and not after it; a key that never ends is never named."""
    soon = replace(RECORD, expires_at=NOW + 2 * DAY_MS)
    reminders = Reminders(3 * DAY_MS)
    assert reminders.due([soon, RECORD], NOW) == [soon]
    assert reminders.due([soon], NOW + DAY_MS - 1) == []
    assert reminders.due([], NOW + DAY_MS) == []
    assert reminders.due([soon], NOW + DAY_MS) == [soon]
    assert Reminders(3 * DAY_MS).due([soon], NOW + 2 * DAY_MS) == []
    assert Reminders(DAY_MS).due([soon], NOW) == []


def test_what_ends_soon_is_counted_without_what_was_rotated_or_revoked() -> None:
    """The first end is that of any active key, near or far."""
    near, far = replace(RECORD, expires_at=NOW + DAY_MS), replace(RECORD, expires_at=NOW + 50 * DAY_MS)
    replaced = replace(near, replaced_by="other", expires_at=NOW + 5)
    revoked = replace(near, revoked=True, expires_at=NOW + 6)
    over = replace(near, expires_at=NOW)
    assert expiring([RECORD, near, far, replaced, revoked, over], NOW, 14 * DAY_MS) == (1, {RECORD.app: DAY_MS})
    assert expiring([far, replaced], NOW, 14 * DAY_MS) == (0, {RECORD.app: 50 * DAY_MS})
    assert expiring([RECORD], NOW, 14 * DAY_MS) == (0, {})


def test_a_surge_is_told_once_a_minute() -> None:
    """Only where many come within the window; a slow trickle never is one."""
    surge = Surge(many=3, window_ms=1_000, quiet_ms=60_000)
    told = [surge.add("unknown_key", NOW + at) for at in range(5)]
    assert told == [None, None, {"unknown_key": 3}, None, None]
    assert all(surge.add("unknown_key", NOW + at) is None for at in range(10_000, 60_000))
    again = [surge.add("malformed_key", NOW + 60_002 + at) for at in range(1_000)]
    assert len([counts for counts in again if counts]) == 1
    slow = Surge(many=3, window_ms=1_000)
    assert all(slow.add("unknown_key", NOW + 500 * at) is None for at in range(100))


def test_the_chain_of_rotations() -> None:
    """Retiring, then expired by itself; the successor has the scopes and the lifetime; what it replaced is found."""
    old = replace(RECORD, types=("a.*",), expires_at=NOW + 90 * DAY_MS, lifetime=90 * DAY_MS)
    key, key_id = make_key(5)
    new = keys.successor(old, key, key_id, NOW, old.lifetime)
    assert (new.app, new.types, new.expires_at, new.replaces) == (old.app, old.types, NOW + 90 * DAY_MS, old.id)
    assert new.patterns == old.patterns
    assert keys.matches(new, key)
    retired = keys.retired(old, key_id, NOW + 5)
    assert [retired.state(NOW), retired.state(NOW + 4), retired.state(NOW + 5)] == ["retiring", "retiring", "expired"]
    assert keys.retired(retired, "later", NOW + 9).expires_at == NOW + 5
    third = keys.successor(new, *make_key(6), NOW, None)
    replaced = keys.retired(new, third.id, NOW + 9)
    everything = [third, retired, replaced, replace(RECORD, id="other")]
    assert keys.predecessors(third.id, everything) == [replaced, retired]
    assert keys.predecessors(retired.id, everything) == keys.predecessors("nobody", everything) == []
    a, b = (replace(RECORD, id=x, replaces=y, replaced_by=y) for x, y in ("ab", "ba"))
    assert keys.predecessors("a", [a, b]) == [b, a]
    # a rotation that died before it reached the key
    assert keys.predecessors(third.id, [third, new, retired]) == []


@pytest.mark.parametrize("known", [True, False])
def test_an_unknown_id_costs_what_a_wrong_secret_does(known: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """One SHA-256 of the whole key, one comparison of two hashes in constant time, and the same answer."""
    compared: list[tuple[int, int]] = []
    hashed: list[str] = []
    real_compare, real_digest = hmac.compare_digest, keys.digest

    def compare(one: str, other: str) -> bool:
        compared.append((len(one), len(other)))
        return real_compare(one, other)

    def digest(key: str) -> str:
        hashed.append(key)
        return real_digest(key)

    record = make_record(KEY, KEY_ID) if known else None
    wrong = f"jd_live_{KEY_ID}_" + "0" * keys.SECRET_LENGTH
    wrong += keys.checksum(wrong)
    assert keys.parse(wrong) == KEY_ID
    monkeypatch.setattr("dispatcher.core.keys.hmac.compare_digest", compare)
    monkeypatch.setattr("dispatcher.core.keys.digest", digest)
    with pytest.raises(Refusal) as refusal:
        authenticate(wrong, record, NOW)
    assert refusal.value.code == Code.UNKNOWN_KEY
    assert refusal.value.sentence == "no such API key; see: dispatcher keys list"
    assert compared == [(64, 64)]
    assert hashed == [wrong]


def test_no_key_has_the_hash_of_nobody() -> None:
    """Where there is no record, nothing is equal, not even that hash."""
    assert not keys.matches(None, KEY)
    assert keys.matches(RECORD, KEY)
