"""Dead jobs put together by the fingerprint of their error."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from dispatcher.core.fingerprints import Fingerprint, fingerprint

#: So many groups are told apart; the jobs of further ones are only counted.
MAX_GROUPS = 1_000
#: So many types of a group are counted apart.
MAX_TYPES = 20


@dataclass(slots=True)
class Group:
    """Jobs that died of one trouble; times in milliseconds since the epoch."""

    fingerprint: Fingerprint
    example: str
    first_seen: int
    last_seen: int
    count: int = 0
    types: Counter[str] = field(default_factory=Counter)

    def add(self, job: Mapping[str, Any], seen: int) -> None:
        """Count one more job; the last that died is the example."""
        self.count += 1
        if job["type"] in self.types or len(self.types) < MAX_TYPES:
            self.types[job["type"]] += 1
        self.first_seen = min(self.first_seen, seen)
        if seen >= self.last_seen:
            self.last_seen, self.example = seen, job["_id"]

    def document(self) -> dict[str, Any]:
        """The group as ``dead list --groups --json`` prints it."""
        return {
            "fingerprint": self.fingerprint.id,
            "count": self.count,
            "types": dict(self.types.most_common()),
            "error": {"type": self.fingerprint.type, "message": self.fingerprint.message},
            "frame": self.fingerprint.frame,
            "first_seen": self.first_seen,
            "last_seen": self.last_seen,
            "example": self.example,
        }


class DeadGroups:
    """Takes dead jobs one by one, and holds their groups alone: the memory that it needs has a bound."""

    def __init__(self) -> None:
        self._groups: dict[str, Group] = {}
        #: Jobs whose groups are too many to be held.
        self.others = 0

    def __len__(self) -> int:
        return len(self._groups)

    def add(self, job: Mapping[str, Any]) -> None:
        """Count a dead job, a document of history with ``_id``, ``type``, ``error`` and its times."""
        found = fingerprint(job.get("error") or {})
        seen = job["finished_at"] if job.get("finished_at") is not None else job["accepted_at"]
        group = self._groups.get(found.id)
        if group is None:
            if len(self._groups) >= MAX_GROUPS:
                self.others += 1
                return
            group = self._groups[found.id] = Group(found, job["_id"], seen, seen)
        group.add(job, seen)

    def largest(self) -> list[Group]:
        """The groups, the largest first; among equals, the one seen last."""
        return sorted(self._groups.values(), key=lambda group: (-group.count, -group.last_seen))
