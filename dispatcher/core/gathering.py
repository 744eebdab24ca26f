"""Gathering the events of a job until writing its document is worth it.

Under load a job is accepted, run and done within a second. Written apart, its acceptance and its end cost an insert,
a read and an update; together they cost an insert. So the recorder may let a job that is only known to wait or run
be held for a moment, and writes everything else at once.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Generic, TypeVar

from dispatcher.core.history import document_id
from schemas import Accepted, Event, Progressed, Started

Source = TypeVar("Source")


@dataclass(slots=True)
class Group(Generic[Source]):
    """The gathered events of one job, each with the message that brought it; ``since`` is the first's arrival."""

    id: str
    since: float
    events: list[Event] = field(default_factory=list)
    sources: list[Source] = field(default_factory=list)
    done: bool = False


class Gathering(Generic[Source]):
    """Events by job, in the order of arrival."""

    def __init__(self) -> None:
        self._groups: dict[str, Group[Source]] = {}

    def __len__(self) -> int:
        return len(self._groups)

    def add(self, source: Source, event: Event, now: float) -> None:
        """An event arrived, in a message, at ``now`` (seconds of any steady clock)."""
        job = document_id(event.app, event.id)
        group = self._groups.get(job)
        if group is None:
            group = self._groups[job] = Group(job, now)
        group.events.append(event)
        group.sources.append(source)
        group.done = group.done or not isinstance(event, (Accepted, Started, Progressed))

    def take(self, now: float, hold: float) -> list[Group[Source]]:
        """Take out every job of which more than a beginning is known, and those held for ``hold`` seconds."""
        due = [group for group in self._groups.values() if group.done or now - group.since >= hold]
        for group in due:
            del self._groups[group.id]
        return due

    def clear(self) -> None:
        """Forget everything."""
        self._groups.clear()


def portions(groups: list[Group[Source]], max_events: int) -> Iterator[list[Group[Source]]]:
    """Groups in portions of at most so many events (one group may exceed it alone)."""
    portion: list[Group[Source]] = []
    count = 0
    for group in groups:
        if portion and count + len(group.events) > max_events:
            yield portion
            portion, count = [], 0
        portion.append(group)
        count += len(group.events)
    if portion:
        yield portion
