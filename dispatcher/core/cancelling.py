"""Cancelling by an operator: a tombstone says that a run of a job must not go on.

Whoever is about to start a step, or runs one, whose run has a tombstone makes the run final instead. A later run,
started by hand afterwards, is another one.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from dispatcher.core.history import document_id
from schemas import ErrorInfo

#: Seconds between two looks of a worker for new tombstones.
REFRESH = 0.25
#: What a worker knew longer ago than this is not enough to start a step by, in seconds; so nothing starts that much
#: after a tombstone was written.
FRESH = 1.0
#: The error type of a job that an operator cancelled.
ERROR_TYPE = "Cancelled"
#: What is said where the operator gives no reason.
NO_REASON = "cancelled by an operator"
#: Longest reason, in characters.
MAX_REASON = 500


@dataclass(frozen=True, slots=True)
class Tombstone:
    """Runs of ``job`` (``<app>:<id>``) up to ``run`` must not go on."""

    job: str
    run: int
    reason: str

    @property
    def error(self) -> ErrorInfo:
        """What history says of the cancelled job."""
        return ErrorInfo(type=ERROR_TYPE, message=self.reason)


class Tombstones:
    """Tombstones by job."""

    def __init__(self, known: Iterable[Tombstone] = ()) -> None:
        self._by_job = {tombstone.job: tombstone for tombstone in known}

    def __len__(self) -> int:
        return len(self._by_job)

    def learn(self, found: Iterable[Tombstone]) -> list[Tombstone]:
        """Add these; returns those that say something new."""
        new = []
        for tombstone in found:
            old = self._by_job.get(tombstone.job)
            if old is None or old.run < tombstone.run:
                self._by_job[tombstone.job] = tombstone
                new.append(tombstone)
        return new

    def of(self, app: str, job_id: str, run: int) -> Tombstone | None:
        """The tombstone that stops this run, if there is one."""
        if not self._by_job:
            return None
        tombstone = self._by_job.get(document_id(app, job_id))
        return tombstone if tombstone is not None and run <= tombstone.run else None
