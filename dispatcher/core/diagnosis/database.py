"""Judgements about MongoDB and the API keys in it."""

from __future__ import annotations

from collections.abc import Sequence

from dispatcher.core.diagnosis.broker import version_of
from dispatcher.core.diagnosis.finding import Finding, failed, fine, warning
from dispatcher.core.keys import KeyRecord

#: The oldest version that has what we use, and the oldest that was tried.
OLDEST, TRIED = (4, 4), (6, 0)
#: Clocks that differ by more than this, in seconds, make delays and expiry visibly wrong, or plainly so.
SKEW, MUCH_SKEW = 0.5, 5.0
DAY_MS = 86_400_000


def database_version(text: str) -> Finding:
    """Whether we know how this version behaves."""
    check, version = "database-version", version_of(text)
    if version is None:
        return warning(check, f"the server calls itself MongoDB {text}", "use MongoDB 6 or newer")
    if version < OLDEST:
        return failed(check, f"MongoDB {text} is too old", "upgrade MongoDB to 6 or newer")
    if version < TRIED:
        return warning(check, f"MongoDB {text} is older than what was tried", "upgrade MongoDB to 6 or newer")
    return fine(check, f"MongoDB {text}")


def replica_set(name: str | None, members: int) -> Finding:
    """Whether history outlives a server."""
    if name is None:
        return warning(
            "replica-set",
            "a standalone server: history is as safe as its one disk",
            "run MongoDB as a replica set (three members; --replSet and rs.initiate())",
        )
    return fine("replica-set", f"replica set {name}, {members} member{'s' if members != 1 else ''}")


def majority(seconds: float) -> Finding:
    """A write went through."""
    return fine("majority", f"written after {seconds * 1000:.0f} ms")


def indexes(missing: Sequence[str], number: int) -> Finding:
    """Whether every index exists."""
    if missing:
        return failed("indexes", f"missing: {', '.join(missing)}", "run: dispatcher topology apply")
    return fine("indexes", f"{number} indexes")


def clock(ahead: float, uncertain: float) -> Finding:
    """How far this machine's clock is ahead of MongoDB's, in seconds, and how far that may be wrong."""
    check = "clock"
    off = max(abs(ahead) - uncertain, 0)
    shown = f"this machine's clock is {abs(ahead):.3f} s {'ahead of' if ahead > 0 else 'behind'} MongoDB's"
    fix = "run a time service (chrony, systemd-timesyncd) on every machine"
    if off > MUCH_SKEW:
        return failed(check, f"{shown}: jobs start and expire at wrong times", fix)
    if off > SKEW:
        return warning(check, shown, fix)
    return fine(check, shown)


def keys(records: Sequence[KeyRecord], now: int, warn_days: float) -> Finding:
    """Whether applications have keys that go on."""
    check = "keys"
    active = [record for record in records if record.state(now) == "active"]
    if not active:
        return warning(check, "no active API key: every job is refused", "run: dispatcher keys create --app APP")
    soon = [r for r in active if r.expires_at is not None and r.expires_at - now <= warn_days * DAY_MS]
    if soon:
        soon.sort(key=lambda record: record.expires_at or 0)
        first = soon[0]
        days = ((first.expires_at or 0) - now) / DAY_MS
        return warning(
            check,
            f"{len(soon)} of {len(active)} keys expire within {warn_days:g} days, first {first.id} of app {first.app} "
            f"in {days:.1f} days",
            f"give app {first.app} another key: dispatcher keys rotate {first.id}",
        )
    return fine(check, f"{len(active)} active")
