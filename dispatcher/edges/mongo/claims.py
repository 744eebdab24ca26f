"""The collections ``claims`` (ids) and ``unique_keys``: who has what, made and asked for many at a time.

A claim is made by inserting it: of several at the same time MongoDB takes one. A claim of an id goes after a day, when
history knows its job; one of a unique key at the end of its window.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from bson.datetime_ms import DatetimeMS
from pymongo import InsertOne
from pymongo.errors import BulkWriteError

from dispatcher.core.claims import Claim, first_of
from dispatcher.edges.mongo.client import Database, from_date
from schemas import JobState

_DUPLICATE_KEY = 11000
_FIRST = dict.fromkeys(("id", "type", "lane", "priority", "state", "accepted_at"), 1)


class ClaimStore:
    """Makes, finds and marks claims."""

    def __init__(self, database: Database) -> None:
        self._ids = Claims(database, "claims")
        self._keys = Claims(database, "unique_keys")
        self._jobs = database.db["jobs"]

    @property
    def ids(self) -> Claims:
        """The claims of ids; a claim's name is its job's document id."""
        return self._ids

    @property
    def keys(self) -> Claims:
        """The claims of unique keys; a claim's name is app and key."""
        return self._keys

    async def recorded(self, names: Sequence[str]) -> dict[str, Claim]:
        """The jobs with these document ids that history knows, as claims; refusals are none."""
        if not names:
            return {}
        found = self._jobs.find({"_id": {"$in": list(names)}}, _FIRST)
        firsts = [first_of({**row, "accepted_at": from_date(row["accepted_at"])}) async for row in found]
        return {first.name: first for first in firsts if first is not None}

    async def states(self, names: Sequence[str]) -> dict[str, JobState]:
        """The states of these documents, of those that history has."""
        if not names:
            return {}
        found = self._jobs.find({"_id": {"$in": list(names)}}, {"state": 1})
        return {row["_id"]: JobState(row["state"]) async for row in found}


class Claims:
    """One collection of claims."""

    def __init__(self, database: Database, name: str) -> None:
        self._claims = database.db[name]

    async def make(self, claims: Sequence[Claim]) -> dict[str, Claim | None]:
        """Make these claims, of different names; returns, by name, those that somebody has already.

        None stands for one that went while it was looked for.

        Raises:
            DatabaseError: any of them may be made, or not.
        """
        if not claims:
            return {}
        try:
            await self._claims.bulk_write([InsertOne(_document(claim)) for claim in claims], ordered=False)
            return {}
        except BulkWriteError as error:
            problems = error.details.get("writeErrors", ())
            if error.details.get("writeConcernErrors") or any(p["code"] != _DUPLICATE_KEY for p in problems):
                raise
            taken = [claims[problem["index"]].name for problem in problems]
        held = {row["_id"]: _claim(row) async for row in self._claims.find({"_id": {"$in": taken}})}
        return {name: held.get(name) for name in taken}

    async def replace(self, old: Claim, new: Claim) -> bool:
        """Put a claim in the place of one that is still what it was; whether it was."""
        same = {"_id": old.name, "job": old.job, "at": DatetimeMS(old.at), "done": old.done}
        result = await self._claims.replace_one(same, _document(new))
        return bool(result.matched_count)

    async def mark_done(self, claims: Iterable[Claim]) -> None:
        """What these claims were made for is published. One that somebody else has by now stays as it is."""
        by_name = {claim.name: claim.job for claim in claims}
        marked = {"_id": {"$in": list(by_name)}, "job": {"$in": list(set(by_name.values()))}}
        await self._claims.update_many(marked, {"$set": {"done": True}})


def _document(claim: Claim) -> dict[str, Any]:
    stored: dict[str, Any] = {
        "_id": claim.name,
        "job": claim.job,
        "type": claim.type,
        "lane": claim.lane,
        "priority": claim.priority,
        "at": DatetimeMS(claim.at),
        "digest": claim.digest,
        "done": claim.done,
    }
    if claim.until is not None and claim.expires_at is not None:
        stored |= {"app": claim.app, "until": claim.until, "expires_at": DatetimeMS(claim.expires_at)}
    return stored


def _claim(row: Mapping[str, Any]) -> Claim:
    return Claim(
        row["_id"],
        row["job"],
        row["type"],
        row["lane"],
        row["priority"],
        from_date(row["at"]) or 0,
        row["digest"],
        row.get("until"),
        from_date(row.get("expires_at")),
        row["done"],
    )
