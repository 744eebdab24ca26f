"""Statistics that an older program stored: with fewer figures they are counted anew, never read as if they were 0."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from dispatcher.core.statistics import report
from dispatcher.edges.mongo import Database, StatisticsStore
from tests.support import Installation

pytestmark = pytest.mark.integration


async def test_a_minute_without_the_starts_is_put_together_anew(installed: Installation) -> None:
    """What is read is right at once; marked and rolled up, it is stored with them."""
    minute = datetime(2026, 1, 1, 12, 0, tzinfo=UTC)
    attempt: dict[str, Any] = {"run": 1, "n": 1, "started_at": minute, "finished_at": minute, "outcome": "succeeded"}
    job = {"_id": "shop:old", "type": "a.b", "priority": "low", "app": "shop", "state": "succeeded"}
    installed.db.jobs.insert_one(job | {"accepted_at": minute + timedelta(seconds=1), "attempts": [attempt] * 3})
    cell = {"type": "a.b", "priority": "low", "app": "shop", "states": {"succeeded": 1}, "retries": 0}
    installed.db.stats.insert_one({"_id": minute, "generation": 1, "cells": [cell | {"wait": [], "run": []}]})
    database = Database(installed.settings.mongo.url.get_secret_value(), installed.settings.mongo.database)
    store = StatisticsStore(database)
    try:
        assert report(await store.cells())["starts"]["by_priority"] == {"low": 3}
        assert await store.roll_up(0.001) == 0
        await store.mark_old()
        assert await store.roll_up(-1) == 1
        stored = installed.db.stats.find_one({"_id": minute})
        assert [cell["starts"] for cell in stored["cells"]] == [3]
        await store.mark_old()
        assert await store.roll_up(-1) == 0
        assert report(await store.cells())["starts"]["total"] == 3
    finally:
        database.close()
