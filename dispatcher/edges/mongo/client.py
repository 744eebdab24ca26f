"""The connection to MongoDB, and the indexes. Motor is imported here alone, so that its successor is one line away."""

from __future__ import annotations

import re
import threading
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from bson import CodecOptions
from bson.codec_options import DatetimeConversion
from bson.datetime_ms import DatetimeMS
from motor.motor_asyncio import AsyncIOMotorClient
from pymongo import ASCENDING, DESCENDING, IndexModel
from pymongo.errors import ConnectionFailure, PyMongoError

from dispatcher.core.errors import DispatcherError

#: Any failure that MongoDB reports.
DatabaseError = PyMongoError
#: MongoDB cannot be reached, or lost its primary.
DatabaseAway = ConnectionFailure

SELECTION_TIMEOUT_MS = 2_000
#: Longest wait for one answer.
SOCKET_TIMEOUT_MS = 20_000
#: Longest time that closing may hold up a service that stops, in seconds.
CLOSE_TIMEOUT = 0.5

#: What a URL looks like.
_FORM = "write mongodb://user:password@host:27017/?replicaSet=rs0, with %-escapes in user and password"

_CODEC: CodecOptions[Any] = CodecOptions(tz_aware=True, datetime_conversion=DatetimeConversion.DATETIME_MS)

#: Every index of every collection.
INDEXES: dict[str, list[IndexModel]] = {
    "jobs": [
        IndexModel([("accepted_at", DESCENDING)]),
        IndexModel([("deadline_at", ASCENDING)], sparse=True),
        IndexModel([("state", ASCENDING), ("accepted_at", DESCENDING)]),
        IndexModel([("app", ASCENDING), ("accepted_at", DESCENDING)]),
        IndexModel([("type", ASCENDING), ("accepted_at", DESCENDING)]),
        IndexModel(
            [("tags", ASCENDING), ("accepted_at", DESCENDING)],
            partialFilterExpression={"tags.0": {"$exists": True}},
        ),
        # by error; few jobs have one
        IndexModel(
            [("error.type", ASCENDING), ("accepted_at", DESCENDING)],
            partialFilterExpression={"error.type": {"$exists": True}},
        ),
        # the longest waiting job; a document that is inserted with its end has no entry
        IndexModel(
            [("lane", ASCENDING), ("priority", ASCENDING), ("run", ASCENDING), ("accepted_at", ASCENDING)],
            partialFilterExpression={"state": "queued"},
        ),
        # the longest overdue job; only those that wait for a time have an entry
        IndexModel(
            [("lane", ASCENDING), ("state", ASCENDING), ("due_at", ASCENDING)],
            partialFilterExpression={"due_at": {"$exists": True}},
        ),
    ],
    "scheduled": [
        IndexModel([("state", ASCENDING), ("wake_at", ASCENDING)]),
        IndexModel([("claim", ASCENDING)], partialFilterExpression={"claim": {"$type": "string"}}),
        # what was released is kept for a day: a message of it that comes again is known then
        IndexModel([("released_at", ASCENDING)], expireAfterSeconds=86_400),
    ],
    # when history knows the job by itself
    "claims": [IndexModel([("at", ASCENDING)], expireAfterSeconds=86_400)],
    "unique_keys": [
        IndexModel([("expires_at", ASCENDING)], expireAfterSeconds=0),
        IndexModel([("app", ASCENDING), ("job", ASCENDING)]),
    ],
    "api_keys": [IndexModel([("updated_at", ASCENDING)]), IndexModel([("app", ASCENDING)])],
    "audit": [
        IndexModel([("at", DESCENDING)]),
        IndexModel([("app", ASCENDING), ("at", DESCENDING)]),
    ],
    "cancels": [IndexModel([("updated_at", ASCENDING)]), IndexModel([("met_at", ASCENDING)], sparse=True)],
    "stats": [IndexModel([("dirty_at", ASCENDING)], sparse=True)],
}


class Database:
    """The configured database; connects when it is first used.

    Raises:
        MongoError: the URL is none of MongoDB's.
    """

    def __init__(self, url: str, name: str) -> None:
        self._url = url
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("error", UserWarning)  # an unknown option
                self._client: Any = AsyncIOMotorClient(
                    url,
                    serverSelectionTimeoutMS=SELECTION_TIMEOUT_MS,
                    connectTimeoutMS=SELECTION_TIMEOUT_MS,
                    socketTimeoutMS=SOCKET_TIMEOUT_MS,
                    w="majority",
                    journal=True,
                    appname="job-dispatcher",
                )
        except (PyMongoError, ValueError, UserWarning) as error:
            reason = str(error).split(". Hint")[0].removesuffix(" Refer to docstring.")[:300]
            raise MongoError(f"mongo.url (DISPATCHER_MONGO__URL) cannot be used: {reason}; {_FORM}") from None
        self.db: Any = self._client.get_database(name, codec_options=_CODEC)

    async def ping(self) -> None:
        """Ask whether the server is there.

        Raises:
            DatabaseError: it is not, or refuses us.
        """
        await self._client.admin.command("ping")

    async def ensure_indexes(self) -> None:
        """Create the indexes that are missing."""
        for collection, indexes in INDEXES.items():
            await self.db[collection].create_indexes(indexes)

    def close(self) -> None:
        """Close the connections.

        The driver tells the server so, and waits for its answer: where that does not come, it goes on by itself.
        """
        closing = threading.Thread(target=self._client.close, name="close MongoDB", daemon=True)
        closing.start()
        closing.join(CLOSE_TIMEOUT)


class MongoError(DispatcherError):
    """MongoDB cannot be used; the sentence says why and what to do."""


@contextmanager
def explained(url: str) -> Iterator[None]:
    """Turn any failure of MongoDB into a sentence, without the password.

    Raises:
        MongoError: in place of what pymongo raised.
    """
    try:
        yield
    except PyMongoError as error:
        raise MongoError(_explain(error, url)) from None


def _explain(error: BaseException, url: str) -> str:
    """One sentence about a failure, without the password."""
    shown = re.sub(r"(://[^:/@]*):.*@", r"\1:***@", url)
    text = str(error)
    if "Authentication failed" in text or "requires authentication" in text:
        return f"MongoDB at {shown} refused the user or password; check mongo.url (DISPATCHER_MONGO__URL)"
    if "SSL" in text:
        return f"MongoDB at {shown}: TLS failed; check whether tls=true belongs into mongo.url, and the certificate"
    if "for replica set name" in text:
        return f"MongoDB at {shown} answers, but not as that replica set; check replicaSet= in mongo.url (rs.status())"
    if "match selector" in text and "primary" in text.lower():
        return f"MongoDB at {shown} has no primary; look at its members: rs.status()"
    if isinstance(error, ConnectionFailure):
        return f"cannot reach MongoDB at {shown}; is it running, is mongo.url (DISPATCHER_MONGO__URL) right?"
    return f"MongoDB at {shown}: {type(error).__name__}: {str(error)[:300]}"


def to_date(ms: int | None) -> DatetimeMS | None:
    """Milliseconds since the epoch as a BSON date."""
    return None if ms is None else DatetimeMS(ms)


def from_date(value: Any) -> int | None:
    """A BSON date as milliseconds since the epoch."""
    return None if value is None else int(value)
