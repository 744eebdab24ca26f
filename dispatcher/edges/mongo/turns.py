"""The collection ``turns``: which of several schedulers does what need be done only once in a while.

A turn is taken by the database's clock and lasts for a time; nobody gives it back. Whoever dies in its turn leaves the
rest to the next.
"""

from __future__ import annotations

import uuid

from pymongo import ReturnDocument
from pymongo.errors import DuplicateKeyError

from dispatcher.edges.mongo.client import Database


class Turns:
    """Takes turns."""

    def __init__(self, database: Database) -> None:
        self._turns = database.db["turns"]

    async def take(self, name: str, seconds: float) -> bool:
        """Whether nobody has taken this turn within its time, in which case it is ours now, for so many seconds."""
        mine = uuid.uuid4().hex
        over = {"$lte": [{"$ifNull": ["$until", "$$NOW"]}, "$$NOW"]}
        until = {"$cond": [over, {"$add": ["$$NOW", round(seconds * 1000)]}, "$until"]}
        change = [{"$set": {"until": until, "holder": {"$cond": [over, mine, "$holder"]}}}]
        try:
            turn = await self._turns.find_one_and_update(
                {"_id": name}, change, upsert=True, return_document=ReturnDocument.AFTER
            )
        except DuplicateKeyError:
            return False  # somebody else made it at the same moment
        return bool(turn["holder"] == mine)
