"""The collection ``jobs``: merging events into documents, and the queries of operators.

Writes are guarded by a revision: a document that somebody else changed in between is read and merged again. Merging
is idempotent, so whatever was written already is not written twice.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from bson.errors import BSONError
from pymongo import InsertOne, UpdateOne
from pymongo.errors import BulkWriteError, DocumentTooLarge

from dispatcher.core.filters import JobFilter, is_pattern, type_expression
from dispatcher.core.history import Document, document_id, merge
from dispatcher.edges.mongo.client import Database, from_date, to_date
from schemas import Accepted, Event

_DUPLICATE_KEY = 11000
_TIMES = ("accepted_at", "finished_at", "due_at", "run_at", "expires_at", "deadline_at")
_ATTEMPT_TIMES = ("started_at", "finished_at")
#: Parts of a document that say when, and in which field.
_DATED = {"progress": "at", "rescheduled": "at", "unique": "expires_at"}

Operation = InsertOne[Any] | UpdateOne


@dataclass(frozen=True, slots=True)
class Unstorable:
    """Events whose document MongoDB refused, and why."""

    events: Sequence[Event]
    reason: str


def query_of(where: JobFilter) -> dict[str, Any]:
    """A filter as MongoDB's; the fingerprint is no field, and is looked at when documents are read."""
    query: dict[str, Any] = {}
    if where.states:
        query["state"] = {"$in": list(where.states)}
    fields = {"app": where.app, "tags": where.tag, "lane": where.lane, "priority": where.priority}
    query |= {name: value for name, value in (fields | {"error.type": where.error}).items() if value}
    if where.tag:
        query["tags.0"] = {"$exists": True}  # else the index on tags, which has no jobs without any, is not used
    if where.breached:
        query["deadline_at"] = {"$exists": True}  # for the index
        unfinished = {"finished_at": None, "$expr": {"$lt": ["$deadline_at", "$$NOW"]}}
        query["$or"] = [{"breached": True}, unfinished]
    if where.type:
        query["type"] = {"$regex": type_expression(where.type)} if is_pattern(where.type) else where.type
    bounds = {"$gte": to_date(where.since), "$lt": to_date(where.until)}
    if accepted := {name: value for name, value in bounds.items() if value is not None}:
        query["accepted_at"] = accepted
    return query


def to_bson(doc: Mapping[str, Any]) -> Document:
    """A document of the core as MongoDB stores it: times become dates."""
    stored = dict(doc)
    for name in _TIMES:
        if name in stored:
            stored[name] = to_date(stored[name])
    if "attempts" in stored:
        stored["attempts"] = [
            {k: to_date(v) if k in _ATTEMPT_TIMES else v for k, v in attempt.items()} for attempt in stored["attempts"]
        ]
    for name, part in _DATED.items():
        if name in stored:
            stored[name] = stored[name] | {part: to_date(stored[name][part])}
    return stored


def from_bson(stored: Mapping[str, Any]) -> Document:
    """The opposite of `to_bson`."""
    doc = dict(stored)
    for name in _TIMES:
        if name in doc:
            doc[name] = from_date(doc[name])
    if "attempts" in doc:
        doc["attempts"] = [
            {k: from_date(v) if k in _ATTEMPT_TIMES else v for k, v in attempt.items()} for attempt in doc["attempts"]
        ]
    for name, part in _DATED.items():
        if name in doc:
            doc[name] = doc[name] | {part: from_date(doc[name][part])}
    return doc


class JobStore:
    """Reads and writes job documents."""

    def __init__(self, database: Database) -> None:
        self._jobs = database.db["jobs"]

    async def record(self, groups: Mapping[str, Sequence[Event]]) -> list[Unstorable]:
        """Merge events into documents, one group a document id; returns what MongoDB refused for its content.

        Raises:
            DatabaseError: nothing is known to be written; call again with the same groups.
        """
        refused: list[Unstorable] = []
        # a group with its acceptance is most likely a new document: try that without reading
        new = {i: events for i, events in groups.items() if any(type(e) is Accepted for e in events)}
        operations = {i: _operation(None, merge(None, events)) for i, events in new.items()}
        again = await self._write(operations, groups, refused)
        again |= groups.keys() - new.keys()
        while again:
            stored = await self._read(again)
            operations = {i: _operation(stored.get(i), merge(stored.get(i), groups[i])) for i in again}
            again = await self._write(operations, groups, refused)
        return refused

    async def _read(self, ids: Iterable[str]) -> dict[str, Document]:
        cursor = self._jobs.find({"_id": {"$in": list(ids)}}, {"payload": 0})
        return {stored["_id"]: from_bson(stored) async for stored in cursor}

    async def _write(
        self,
        operations: Mapping[str, Operation | None],
        groups: Mapping[str, Sequence[Event]],
        refused: list[Unstorable],
    ) -> set[str]:
        """Write; returns the ids to read and merge again."""
        todo = [(i, operation) for i, operation in operations.items() if operation is not None]
        if not todo:
            return set()
        try:
            return await self._bulk(todo, groups, refused)
        except (BSONError, OverflowError, DocumentTooLarge, UnicodeError) as error:
            if len(todo) == 1:
                refused.append(Unstorable(groups[todo[0][0]], f"{type(error).__name__}: {str(error)[:200]}"))
                return set()
        # one of them cannot even be encoded: halve until it stands alone
        middle = len(todo) // 2
        again = await self._write(dict(todo[:middle]), groups, refused)
        return again | await self._write(dict(todo[middle:]), groups, refused)

    async def _bulk(
        self,
        todo: list[tuple[str, Operation]],
        groups: Mapping[str, Sequence[Event]],
        refused: list[Unstorable],
    ) -> set[str]:
        again: set[str] = set()
        try:
            result = (await self._jobs.bulk_write([op for _, op in todo], ordered=False)).bulk_api_result
        except BulkWriteError as error:
            result = error.details
            if result.get("writeConcernErrors"):
                raise
        failed = set()
        for problem in result.get("writeErrors", ()):
            job = todo[problem["index"]][0]
            failed.add(job)
            if problem["code"] == _DUPLICATE_KEY:
                again.add(job)
            else:
                refused.append(Unstorable(groups[job], f"MongoDB error {problem['code']}: {problem['errmsg'][:200]}"))
        updates = {job for job, op in todo if isinstance(op, UpdateOne)} - failed
        if result["nMatched"] < len(updates):
            again |= updates
        return again

    async def get(self, app: str, job_id: str) -> Document | None:
        """One job's document."""
        stored = await self._jobs.find_one({"_id": document_id(app, job_id)})
        return from_bson(stored) if stored else None

    async def find_by_id(self, apps: Iterable[str], job_id: str) -> list[Document]:
        """The documents of this id, over these apps."""
        cursor = self._jobs.find({"_id": {"$in": [document_id(app, job_id) for app in apps]}})
        return [from_bson(stored) async for stored in cursor]

    async def places(self, ids: Sequence[str]) -> dict[str, tuple[int, int, str]]:
        """The recorded run, step and state of these documents, those that exist."""
        cursor = self._jobs.find({"_id": {"$in": list(ids)}}, {"run": 1, "seq": 1, "state": 1})
        return {stored["_id"]: (stored["run"], stored["seq"], stored["state"]) async for stored in cursor}

    async def apps(self) -> list[str]:
        """Every app that has jobs."""
        names: list[str] = await self._jobs.distinct("app")
        return names

    async def types(self) -> list[str]:
        """Every type that has jobs; refused messages may have none."""
        return sorted(name for name in await self._jobs.distinct("type") if name)

    async def recent_ids(self, apps: Iterable[str], limit: int) -> list[tuple[str, str]]:
        """App and id of the jobs accepted last, over these apps."""
        cursor = self._jobs.find({"app": {"$in": list(apps)}}, {"app": 1, "id": 1}).sort("accepted_at", -1).limit(limit)
        return [(stored["app"], stored["id"]) async for stored in cursor]

    async def search(self, where: JobFilter, limit: int) -> list[Document]:
        """Jobs, the last accepted first, without payload and result."""
        found: list[Document] = []
        async for doc in self.scan(where, limit if not where.fingerprint else 0):
            found.append(doc)
            if len(found) == limit:
                break
        return found

    async def scan(
        self, where: JobFilter, limit: int = 0, without: Iterable[str] = ("payload",)
    ) -> AsyncIterator[Document]:
        """Jobs, the last accepted first, without results and these fields; read as they are taken."""
        left_out = dict.fromkeys(("result", *without), 0)
        cursor = self._jobs.find(query_of(where), left_out).sort("accepted_at", -1).limit(limit)
        async for stored in cursor:
            if not where.fingerprint or where.covers_error(stored.get("error")):
                yield from_bson(stored)

    async def count(self, where: JobFilter) -> int:
        """How many jobs match; a fingerprint has to read them."""
        if where.fingerprint:
            return len([doc["_id"] async for doc in self.scan(where, without=("payload", "attempts"))])
        number: int = await self._jobs.count_documents(query_of(where))
        return number


def _operation(old: Document | None, new: Document) -> Operation | None:
    if old is None:
        return InsertOne(to_bson(new))
    changed = {name: value for name, value in new.items() if name not in old or old[name] != value}
    removed = [name for name in old if name not in new]
    if not changed and not removed:
        return None
    changed["rev"] = old["rev"] + 1
    update: dict[str, Any] = {"$set": to_bson(changed)}
    if removed:
        update["$unset"] = dict.fromkeys(removed, "")
    return UpdateOne({"_id": old["_id"], "rev": old["rev"]}, update)
