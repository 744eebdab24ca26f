"""Ids and unique keys while MongoDB is away: their jobs wait in the broker, others run on; then all run once."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from typing import Any

import pytest

from consumers import Registry
from consumers.worker import Worker
from dispatcher.services.intake import Intake
from dispatcher.services.recorder import Recorder
from tests.conftest import run_services
from tests.integration.test_scheduled import through
from tests.proxy import Outage, outage
from tests.support import Installation, eventually

pytestmark = pytest.mark.integration

jobs = Registry()
#: How often each job was started, by the name in its payload.
ran: Counter[str] = Counter()


@jobs.handler("away.plain")
async def plain(payload: dict[str, Any]) -> None:
    """Count its starts."""
    ran[payload["name"]] += 1


#: Begins an outage; what it returns ends it.
Begin = Callable[[Outage], Callable[[], None]]


def job(name: str, **fields: Any) -> tuple[str, dict[str, Any]]:
    """A message whose payload names it."""
    return "away.plain", {"payload": {"name": name}, **fields}


def _cut(away: Outage) -> Callable[[], None]:
    away.begin()
    return away.end


def _frozen(away: Outage) -> Callable[[], None]:
    away.freeze()
    return away.thaw


@pytest.mark.parametrize("begin", [_cut, _frozen], ids=["cut", "frozen"])
async def test_what_must_be_claimed_waits(installed: Installation, begin: Begin) -> None:
    """Also what was sent twice: one job for each id, one that runs for a key."""
    key, deferred, way = await installed.create_key(), installed.names.intake_deferred, begin.__name__
    with outage(installed.environment()["DISPATCHER_MONGO__URL"]) as away:
        cut_off = through(away, installed)
        settings = cut_off.settings
        worker = Worker(settings, jobs, "tests.integration.test_ids_away:jobs")
        async with run_services(Intake(settings), Recorder(settings), worker):
            installed.publish_many([job(f"{way}-before", id=f"{way}-before")], key)
            await installed.finished(f"{way}-before")
            end = begin(away)
            claimed = [job(f"{way}-id-{n}", id=f"{way}-id-{n}") for n in range(10)]
            unique = {"key": way, "for": 600}
            claimed += [job(f"{way}-key", id=f"{way}-key-{n}", unique=unique) for n in range(3)]
            installed.publish_many([*claimed, *claimed[:5]], key)
            installed.publish_many([job(f"{way}-plain-{n}") for n in range(5)], key)
            await eventually(lambda: all(ran[f"{way}-plain-{n}"] for n in range(5)), "jobs without ids run")
            await eventually(lambda: installed.depth(deferred) == len(claimed) + 5, "the others wait")
            assert not any(ran[message["payload"]["name"]] for _, message in claimed)
            end()
            mine = {"_id": {"$regex": f"^shop:{way}-(id|key)-"}}
            final = mine | {"state": {"$in": ["succeeded", "duplicate"]}}
            await eventually(lambda: installed.db.jobs.count_documents(final) == len(claimed), "all are final")
            again = mine | {"resent": 1}
            await eventually(lambda: installed.db.jobs.count_documents(again) == 5, "five were sent again")
            plain_ones = {"payload.name": {"$regex": f"^{way}-plain-"}, "state": "succeeded"}
            await eventually(lambda: installed.db.jobs.count_documents(plain_ones) == 5, "history has the plain ones")
        cut_off.mongo.close()
    names = ["before", "key", *(f"id-{n}" for n in range(10)), *(f"plain-{n}" for n in range(5))]
    assert {name: n for name, n in ran.items() if name.startswith(way)} == {f"{way}-{name}": 1 for name in names}
    with_key = installed.db.jobs.find({"_id": {"$regex": f"^shop:{way}-key-"}})
    states = Counter(document["state"] for document in with_key)
    assert states == {"succeeded": 1, "duplicate": 2}
