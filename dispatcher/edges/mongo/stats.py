"""The collection ``stats``: one document a minute of acceptance, computed from ``jobs`` alone.

The recorder marks a minute dirty *before* it writes a document of that minute. A reader adds up the stored cells of
clean minutes and counts the documents of dirty ones itself, so what it says is always what the documents say. A
minute that has been quiet for longer than a write takes is counted once more, stored and marked clean, unless somebody
marked it again meanwhile; a recorder whose write took longer than that marks the minute again afterwards. Nothing is
ever incremented, so a redelivery or a crash counts nothing twice.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Any

from bson.datetime_ms import DatetimeMS
from pymongo import UpdateOne

from dispatcher.core.statistics import GROWTH, ZERO_BUCKET, Cell
from dispatcher.edges.mongo.client import Database

MINUTE_MS = 60_000
#: A write may end so long after its mark; a minute is put together after more quiet than that (``rollup_quiet``).
LONGEST_WRITE_MS = 20_000

#: Grows with the figures of a cell: a minute that was stored with fewer is counted anew.
FIGURES = 3

CellKey = tuple[str, str | None, str]


def minute_of(accepted_at: int) -> int:
    """The minute that a job counts in."""
    return accepted_at - accepted_at % MINUTE_MS


class StatisticsStore:
    """Marks, counts and stores the statistics."""

    def __init__(self, database: Database) -> None:
        self._jobs = database.db["jobs"]
        self._stats = database.db["stats"]

    async def mark_dirty(self, minutes: Iterable[int]) -> None:
        """Say that documents of these minutes are about to change."""
        marks = [
            UpdateOne(
                {"_id": DatetimeMS(m)},
                {"$inc": {"generation": 1}, "$currentDate": {"dirty_at": True}},
                upsert=True,
            )
            for m in sorted(set(minutes))
        ]
        if marks:
            await self._stats.bulk_write(marks, ordered=False)

    async def cells(self) -> list[Cell]:
        """The statistics as the documents are now."""
        cells: dict[CellKey, Cell] = {}
        dirty: list[int] = []
        async for stored in self._stats.find():
            if stored.get("dirty_at") is not None or stored.get("figures") != FIGURES:
                dirty.append(int(stored["_id"]))
            else:
                for cell in stored["cells"]:
                    _add(cells, _cell(cell))
        for minute in dirty:
            for counted in await self._count(minute):
                _add(cells, counted)
        return list(cells.values())

    async def mark_old(self) -> None:
        """Mark the minutes that were stored with fewer figures, so that they are put together anew."""
        await self._stats.update_many(
            {"figures": {"$ne": FIGURES}, "dirty_at": None},
            {"$inc": {"generation": 1}, "$currentDate": {"dirty_at": True}},
        )

    async def roll_up(self, quiet_seconds: float, limit: int = 100) -> int:
        """Store the cells of minutes that have been quiet; returns how many."""
        quiet = {"$expr": {"$lt": ["$dirty_at", {"$subtract": ["$$NOW", round(quiet_seconds * 1000)]}]}}
        done = 0
        async for stored in self._stats.find({"dirty_at": {"$ne": None}, **quiet}, {"cells": 0}).limit(limit):
            cells = [_stored(cell) for cell in await self._count(int(stored["_id"]))]
            result = await self._stats.update_one(
                {"_id": stored["_id"], "generation": stored["generation"]},
                {"$set": {"cells": cells, "figures": FIGURES}, "$unset": {"dirty_at": ""}},
            )
            done += result.modified_count
        return done

    async def _count(self, minute: int) -> list[Cell]:
        pipeline = [
            {"$match": {"accepted_at": {"$gte": DatetimeMS(minute), "$lt": DatetimeMS(minute + MINUTE_MS)}}},
            {
                "$project": {
                    "type": 1,
                    "priority": 1,
                    "app": 1,
                    "state": 1,
                    "retries": 1,
                    "starts": {"$size": {"$ifNull": ["$attempts", []]}},
                    "breached": {"$cond": [{"$eq": ["$breached", True]}, 1, 0]},
                    "wait_ms": 1,
                    "run_ms": 1,
                }
            },
            {
                "$facet": {
                    "states": [{"$group": {"_id": _key("state", "$state"), **_N, **_SUMS}}],
                    "wait": _histogram("wait_ms"),
                    "run": _histogram("run_ms"),
                }
            },
        ]
        cells: dict[CellKey, Cell] = {}
        async for facets in self._jobs.aggregate(pipeline):
            for row in facets["states"]:
                cell = _of(cells, row["_id"])
                cell.states[row["_id"]["state"]] += row["n"]
                cell.retries += row["retries"]
                cell.starts += row["starts"]
                cell.breached += row["breached"]
            for row in facets["wait"]:
                _of(cells, row["_id"]).wait[int(row["_id"]["bucket"])] += row["n"]
            for row in facets["run"]:
                _of(cells, row["_id"]).run[int(row["_id"]["bucket"])] += row["n"]
        return list(cells.values())


_N = {"n": {"$sum": 1}}
_SUMS = {"retries": {"$sum": "$retries"}, "starts": {"$sum": "$starts"}, "breached": {"$sum": "$breached"}}


def _key(name: str, expression: Any) -> dict[str, Any]:
    return {"type": "$type", "priority": "$priority", "app": "$app", name: expression}


def _histogram(field: str) -> list[dict[str, Any]]:
    value = f"${field}"
    # the same bucket as dispatcher.core.statistics.bucket
    index = {
        "$cond": [
            {"$lt": [value, 1]},
            ZERO_BUCKET,
            {"$round": [{"$divide": [{"$ln": {"$max": [value, 1]}}, math.log(GROWTH)]}, 0]},
        ]
    }
    return [{"$match": {field: {"$exists": True}}}, {"$group": {"_id": _key("bucket", index), **_N}}]


def _of(cells: dict[CellKey, Cell], key: dict[str, Any]) -> Cell:
    where = (key["type"], key.get("priority"), key["app"])
    if where not in cells:
        cells[where] = Cell(*where)
    return cells[where]


def _add(cells: dict[CellKey, Cell], cell: Cell) -> None:
    _of(cells, {"type": cell.type, "priority": cell.priority, "app": cell.app}).add(cell)


def _stored(cell: Cell) -> dict[str, Any]:
    return {
        "type": cell.type,
        "priority": cell.priority,
        "app": cell.app,
        "states": dict(cell.states),
        "retries": cell.retries,
        "starts": cell.starts,
        "breached": cell.breached,
        "wait": [[index, n] for index, n in sorted(cell.wait.items())],
        "run": [[index, n] for index, n in sorted(cell.run.items())],
    }


def _cell(stored: dict[str, Any]) -> Cell:
    counts = {name: stored[name] for name in ("retries", "starts", "breached")}
    cell = Cell(stored["type"], stored["priority"], stored["app"], **counts)
    cell.states.update(stored["states"])
    cell.wait.update(dict(stored["wait"]))
    cell.run.update(dict(stored["run"]))
    return cell
