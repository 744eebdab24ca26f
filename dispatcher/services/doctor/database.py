"""The checks that need MongoDB."""

from __future__ import annotations

from config import Settings
from dispatcher.core.diagnosis import Finding, database, failed, fine
from dispatcher.edges import clock
from dispatcher.edges.mongo import (
    Database,
    DatabaseError,
    KeyStore,
    MongoError,
    explained,
    majority_write,
    missing_indexes,
    server,
)
from dispatcher.services.doctor.guard import guarded, unchecked_all

_NEED_IT = ("database-version", "replica-set", "clock", "majority", "indexes", "keys")


async def check_database(settings: Settings) -> list[Finding]:
    """All of them."""
    url = settings.mongo.url.get_secret_value()
    try:
        reached = Database(url, settings.mongo.database)
    except MongoError as error:
        return _away(str(error), "set mongo.url (DISPATCHER_MONGO__URL), for example mongodb://localhost:27017")
    try:
        with explained(url):
            about = await server(reached)
    except MongoError as error:
        reached.close()
        return _away(str(error), "start MongoDB, or set mongo.url (DISPATCHER_MONGO__URL) right")
    try:
        return [
            fine("database", "connected"),
            database.database_version(about.version),
            database.replica_set(about.replica_set, about.members),
            database.clock(about.ahead, about.uncertain),
            *await guarded(("majority",), lambda: _majority(reached)),
            *await guarded(("indexes",), lambda: _indexes(reached, url)),
            *await guarded(("keys",), lambda: _keys(reached, url, settings.keys.warn_days)),
        ]
    finally:
        reached.close()


def _away(problem: str, fix: str) -> list[Finding]:
    return [failed("database", problem, fix), *unchecked_all(_NEED_IT, "MongoDB cannot be used")]


async def _majority(reached: Database) -> list[Finding]:
    try:
        return [database.majority(await majority_write(reached, clock.new_id()))]
    except DatabaseError as error:
        sentence = f"MongoDB refuses a write: {type(error).__name__}: {str(error)[:200]}"
        fix = "look at its log and members (rs.status()); the user needs the role readWrite on the database"
        return [failed("majority", sentence, fix)]


async def _indexes(reached: Database, url: str) -> list[Finding]:
    with explained(url):
        return [database.indexes(*await missing_indexes(reached))]


async def _keys(reached: Database, url: str, warn_days: float) -> list[Finding]:
    with explained(url):
        return [database.keys(await KeyStore(reached).all(), clock.now_ms(), warn_days)]
