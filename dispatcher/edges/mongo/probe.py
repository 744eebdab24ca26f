"""Asking MongoDB how it is."""

from __future__ import annotations

import time
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import UTC
from typing import Any

from pymongo.write_concern import WriteConcern

from dispatcher.edges.mongo.client import INDEXES, Database, to_date

#: Longest wait for the majority, in milliseconds.
MAJORITY_TIMEOUT_MS = 5_000
#: Longest time that the server may take to count, in milliseconds.
COUNT_TIMEOUT_MS = 2_000


@dataclass(frozen=True, slots=True)
class Server:
    """What the server says of itself; ``ahead`` is our clock less the server's, in seconds, ± ``uncertain``."""

    version: str
    replica_set: str | None
    members: int
    ahead: float
    uncertain: float


async def server(database: Database) -> Server:
    """Ask the server.

    Raises:
        DatabaseError: it is away, or refuses us.
    """
    hello, ahead, uncertain = await _hello(database)
    built = await database.db.command("buildInfo")
    return Server(
        version=str(built["version"]),
        replica_set=hello.get("setName"),
        members=len(hello.get("hosts", ())),
        ahead=ahead,
        uncertain=uncertain,
    )


async def clock_ahead(database: Database) -> tuple[float, float]:
    """By how many seconds our clock is ahead of the server's, and how far off that may be.

    Raises:
        DatabaseError: it is away, or refuses us.
    """
    _, ahead, uncertain = await _hello(database)
    return ahead, uncertain


async def _hello(database: Database) -> tuple[Any, float, float]:
    await database.ping()  # connects, so that the next answer is quick
    before = time.time()
    hello = await database.db.command("hello")
    after = time.time()
    theirs = hello["localTime"].replace(tzinfo=UTC).timestamp()
    # half the way there and back, and the server's millisecond
    return hello, (before + after) / 2 - theirs, (after - before) / 2 + 0.001


async def majority_write(database: Database, token: str) -> float:
    """Write a document to the majority, in a collection that is dropped; returns how long that took, in seconds.

    Raises:
        DatabaseError: it did not work.
    """
    concern = WriteConcern("majority", MAJORITY_TIMEOUT_MS)
    collection = database.db.get_collection(f"doctor_{token}", write_concern=concern)
    began = time.monotonic()
    await collection.insert_one({"_id": token})
    await collection.drop()
    return time.monotonic() - began


async def missing_indexes(database: Database) -> tuple[list[str], int]:
    """The indexes that are not there as they are declared (collection and fields), and how many are declared.

    Raises:
        DatabaseError: it cannot be asked.
    """
    missing: list[str] = []
    number = 0
    for collection, indexes in INDEXES.items():
        there = await database.db[collection].index_information()
        for index in indexes:
            wanted = index.document
            number += 1
            if not any(_same(wanted, stored) for stored in there.values()):
                missing.append(f"{collection} ({', '.join(wanted['key'])})")
    return missing, number


def _same(wanted: Any, stored: Any) -> bool:
    if list(wanted["key"].items()) != [(name, direction) for name, direction in stored["key"]]:
        return False
    options = ("partialFilterExpression", "sparse", "unique", "expireAfterSeconds")
    return all(wanted.get(option) == stored.get(option) for option in options)


async def accepted_since(database: Database, states: Iterable[str], since: int) -> int:
    """How many jobs in these states were accepted (or refused) since a time, in milliseconds.

    Raises:
        DatabaseError: it cannot be asked.
    """
    where = {"state": {"$in": list(states)}, "accepted_at": {"$gte": to_date(since)}}
    number: int = await database.db["jobs"].count_documents(where, maxTimeMS=COUNT_TIMEOUT_MS)
    return number
