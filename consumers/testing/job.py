"""A job of a simulation, as the test sees it."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

from consumers.testing.logs import LogLine
from dispatcher.core.history import Document, merge
from dispatcher.core.lifecycle import FINAL
from schemas import Event, EventBatch
from schemas.events import encode_batches

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


def to_datetime(ms: int) -> datetime:
    """Milliseconds since the epoch as a date in UTC."""
    return _EPOCH + timedelta(milliseconds=ms)


def to_ms(moment: datetime) -> int:
    """The opposite of `to_datetime`."""
    return (moment - _EPOCH) // timedelta(milliseconds=1)


class SimulatedJob:
    """A job and its history."""

    def __init__(self, app: str, id: str) -> None:
        self.app = app
        self.id = id
        #: The lines of ``ctx.log`` in all its attempts.
        self.logs: list[LogLine] = []
        self._document: Document = {}

    def record(self, event: Event) -> None:
        """Merge an event, as the recorder does; the simulation's business."""
        (body,) = encode_batches([event])
        self._document = merge(self._document or None, EventBatch.decode(body).events)

    @property
    def document(self) -> dict[str, Any]:
        """The job's document as it would stand in MongoDB; see docs/formats.md."""
        attempts = [_dated(attempt) for attempt in self._document["attempts"]]
        document = {**_dated(self._document), "attempts": attempts}
        if progress := self._document.get("progress"):
            document["progress"] = progress | {"at": to_datetime(progress["at"])}
        return document

    @property
    def state(self) -> str:
        """Its state; see docs/states.md."""
        return str(self._document["state"])

    @property
    def final(self) -> bool:
        """Whether its run is over."""
        return self._document["state"] in FINAL

    @property
    def attempts(self) -> Sequence[dict[str, Any]]:
        """Every execution: ``run``, ``n``, ``started_at``, ``finished_at``, ``outcome``, ``error`` and more."""
        found: list[dict[str, Any]] = self.document["attempts"]
        return found

    @property
    def outcomes(self) -> list[str | None]:
        """The outcome of every execution, in order."""
        return [attempt["outcome"] for attempt in self._document["attempts"]]

    @property
    def result(self) -> Any:
        """What its handler returned, where it succeeded."""
        return self._document.get("result")

    @property
    def error(self) -> dict[str, Any] | None:
        """Why it failed, was cancelled or put off."""
        return self._document.get("error")

    @property
    def due_at(self) -> datetime | None:
        """When it comes back, where it waits."""
        due: int | None = self._document.get("due_at")
        return None if due is None else to_datetime(due)

    def __repr__(self) -> str:
        return f"<job {self.app}:{self.id} {self._document.get('type')}: {self._document.get('state')}>"


def _dated(fields: dict[str, Any]) -> dict[str, Any]:
    """A copy, its times as dates."""
    return {
        name: to_datetime(value) if name.endswith("_at") and isinstance(value, int) else value
        for name, value in fields.items()
    }
