"""What is gathered of the keys in use: counts, last use, and when to speak of one that ends soon or of a surge."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from dispatcher.core.keys import KeyRecord

DAY_MS = 86_400_000


@dataclass(slots=True)
class Usage:
    """How often a key was used, and when last, in milliseconds since the epoch."""

    key_id: str
    app: str
    accepted: int = 0
    refused: int = 0
    last_used_at: int = 0


class Tally:
    """Uses since they were last taken. It holds one entry a key, and only keys whose secret was right have one."""

    def __init__(self) -> None:
        self._usages: dict[str, Usage] = {}

    def count(self, key_id: str, app: str, now: int, *, accepted: int = 0, refused: int = 0) -> None:
        """Count uses, the latest of them at ``now``."""
        usage = self._usages.get(key_id)
        if usage is None:
            usage = self._usages[key_id] = Usage(key_id, app)
        usage.accepted += accepted
        usage.refused += refused
        usage.last_used_at = max(usage.last_used_at, now)

    def take(self) -> list[Usage]:
        """All uses, which are then forgotten."""
        usages, self._usages = self._usages, {}
        return list(usages.values())

    def put_back(self, usages: Iterable[Usage]) -> None:
        """Uses that could not be written: they are counted with those that came since."""
        for use in usages:
            self.count(use.key_id, use.app, use.last_used_at, accepted=use.accepted, refused=use.refused)


class Reminders:
    """Once a day for each key in use that will soon not be accepted any more."""

    def __init__(self, within_ms: float) -> None:
        self._within = within_ms
        self._reminded: dict[str, int] = {}

    def due(self, used: Iterable[KeyRecord], now: int) -> list[KeyRecord]:
        """Those of the used keys of which to speak now."""
        self._reminded = {key_id: at for key_id, at in self._reminded.items() if now - at < DAY_MS}
        due = [key for key in used if key.id not in self._reminded and key.expires_within(now, self._within)]
        self._reminded.update((key.id, now) for key in due)
        return due


def expiring(records: Iterable[KeyRecord], now: int, within_ms: float) -> tuple[int, dict[str, int]]:
    """How many active keys end so soon, and the milliseconds until the first active key of each application ends.

    A key that was rotated is meant to end, and does not count. An application whose keys never end is not there.
    """
    soon, first = 0, dict[str, int]()
    for key in records:
        if key.expires_at is not None and key.state(now) == "active":
            left = key.expires_at - now
            soon += left <= within_ms
            first[key.app] = min(left, first.get(key.app, left))
    return soon, first


class Surge:
    """Notices when many messages with bad keys arrive, and says so at most once a minute."""

    def __init__(self, *, many: int = 100, window_ms: int = 10_000, quiet_ms: int = 60_000) -> None:
        self._many = many
        self._window = window_ms
        self._quiet = quiet_ms
        self._counts: Counter[str] = Counter()
        self._began = 0
        self._silent_until = 0

    def add(self, code: str, now: int) -> Mapping[str, int] | None:
        """Count a refusal; returns the counts by code of this window where it is time to speak."""
        if now - self._began >= self._window:
            self._counts.clear()
            self._began = now
        self._counts[code] += 1
        if self._counts.total() < self._many or now < self._silent_until:
            return None
        self._silent_until = now + self._quiet
        return dict(self._counts)
