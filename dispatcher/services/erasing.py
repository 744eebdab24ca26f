"""Erasing personal data: the finished jobs of an app, or one of them, wherever their content lies for good.

That is history, the parked queues and ``rejected``. Jobs that are not finished are left alone: their messages are on
their way. Queues go first: were history emptied before a kill, nobody would know any more which jobs had been there.
Whatever is killed, the same command again does the rest.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from pydantic import ValidationError

from dispatcher.core.dated import APP_HEADER, AT_HEADER
from dispatcher.core.filters import JobFilter
from dispatcher.core.history import document_id
from dispatcher.edges.amqp import sift
from dispatcher.edges.operator import whoami
from dispatcher.services.operations import Operations
from schemas import WorkMessage

#: Told how many were looked at, of how many, and how many of them go.
Tell = Callable[[int, int, int], None]


@dataclass(frozen=True, slots=True)
class Meant:
    """Which jobs: those of an app, by type and time of acceptance, or the one with this id."""

    app: str
    id: str | None = None
    type: str | None = None
    before: int | None = None

    @property
    def where(self) -> JobFilter | str:
        """As history is asked."""
        if self.id is not None:
            return document_id(self.app, self.id)
        return JobFilter(app=self.app, type=self.type, until=self.before)

    def parked(self, _: Mapping[str, Any], body: bytes) -> bool:
        """Whether a parked message is of such a job."""
        try:
            work = WorkMessage.decode(body)
        except ValidationError:
            return False
        where = self.where
        return work.key == (self.app, self.id) if isinstance(where, str) else where.covers(work)

    def refused(self, headers: Mapping[str, Any], body: bytes) -> bool:
        """Whether a refused message is of this app, and older; of its body only the id can be asked for."""
        if headers.get(APP_HEADER) != self.app or self.type is not None:
            return False
        if self.id is not None:
            return bool(_id_in(body) == self.id)
        at = headers.get(AT_HEADER)
        return self.before is None or (isinstance(at, int) and at < self.before)


@dataclass(frozen=True, slots=True)
class Erased:
    """What was erased, or would be, by place; ``unfinished`` jobs stay."""

    history: int
    parked: int
    rejected: int
    unfinished: int


async def count(operations: Operations, meant: Meant) -> Erased:
    """What would be erased; nothing is changed."""
    finished, unfinished = await operations.forgetting.count(meant.where)
    if meant.id is not None and unfinished:
        return Erased(0, 0, 0, unfinished)
    parked, rejected = await _sift(operations, meant, lambda *_: None, dry=True)
    return Erased(finished, parked, rejected, unfinished)


async def erase(operations: Operations, meant: Meant, tell: Tell) -> Erased:
    """Erase, with an entry in the audit around it."""
    details: dict[str, Any] = {"id": meant.id, "type": meant.type, "before": meant.before}
    async with operations.audit.entry("jobs.erased", by=whoami(), app=meant.app, **details) as written:
        total, unfinished = await operations.forgetting.count(meant.where)
        if meant.id is not None and unfinished:
            return Erased(0, 0, 0, unfinished)
        parked, rejected = await _sift(operations, meant, tell, dry=False)
        history = 0
        while deleted := await operations.forgetting.erase(meant.where):
            history += deleted
            tell(history, max(total, history), history)
        _, unfinished = await operations.forgetting.count(meant.where)
        written.update(history=history, parked=parked, rejected=rejected)
        return Erased(history, parked, rejected, unfinished)


async def _sift(operations: Operations, meant: Meant, tell: Tell, dry: bool) -> tuple[int, int]:
    """How many messages of the parked queues and of ``rejected`` are meant; taken out, unless it is a dry run."""
    names, found = operations.names, [0, 0]
    places = [(names.parked(lane), meant.parked, 0) for lane in operations.lanes]
    for queue, means, place in [*places, (names.rejected, meant.refused, 1)]:

        def goes(headers: Mapping[str, Any], body: bytes, means: Any = means, place: int = place) -> bool:
            going = bool(means(headers, body))
            found[place] += going
            return going and not dry

        await sift(operations.url, queue, goes, watch=lambda seen, total: tell(seen, total, sum(found)))
    return found[0], found[1]


def _id_in(body: bytes) -> Any:
    try:
        content = json.loads(body)
    except (ValueError, RecursionError):
        return None
    return content.get("id") if isinstance(content, dict) else None
