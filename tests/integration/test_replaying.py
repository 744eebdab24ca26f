"""Many jobs are run again at once: by one rotation through what is parked, or from history; stopped and repeated."""

from __future__ import annotations

import asyncio
import json
import signal
import sys
from collections import Counter
from datetime import UTC, datetime
from typing import Any

import pytest

from dispatcher.edges.amqp.rotate import AHEAD, WINDOW
from schemas import ErrorInfo, EventBatch, WorkMessage
from tests.processes import ROOT, environment, invoked
from tests.support import Installation, eventually
from tests.unit.samples import make_work

pytestmark = pytest.mark.integration

BROKEN = ErrorInfo(type="ConnectionError", message="broken")


@pytest.fixture
def shop(installed: Installation) -> Installation:
    """The installation, complete and empty: what is parked is counted."""
    with installed.channel() as channel:
        for lane in ("default", "bulk"):
            channel.queue_purge(installed.names.parked(lane))
        channel.queue_purge(installed.names.work_queue("default", "normal"))
        channel.queue_purge(installed.names.history)
    installed.db.jobs.delete_many({})
    return installed


def work(number: int, **fields: Any) -> WorkMessage:
    """A dead job's message."""
    return make_work(**{"id": f"r-{number:05}", "error": BROKEN, "tags": ("parked",), **fields})


def park(installation: Installation, works: list[WorkMessage], lane: str = "default") -> None:
    """Put messages where the worker parks them."""
    queue = installation.names.parked(lane)
    installation.publish_many([(queue, each.encode()) for each in works], exchange="")


def taken(installation: Installation, queue: str) -> list[WorkMessage]:
    """What a queue holds, in its order."""
    return [WorkMessage.decode(body) for _, body in installation.drain(queue)]


def told(installation: Installation) -> list[Any]:
    """The events in history's queue."""
    bodies = [body for _, body in installation.drain(installation.names.history)]
    return [event for body in bodies for event in EventBatch.decode(body).events]


async def test_only_what_the_filter_covers_is_replayed(shop: Installation) -> None:
    """Two and a half windows: the chosen become first steps of run 2 with their event, the others stay as they were."""
    works = [work(i, type="email.send" if i % 3 else "report.build") for i in range(2 * WINDOW + WINDOW // 2)]
    park(shop, works)
    park(shop, [work(90_000, type="report.build", lane="bulk")], "bulk")
    done = (await invoked(shop, "dead", "replay", "--type", "report.*", "--yes", "--json")).json
    chosen = [each for each in works if each.type == "report.build"]
    expected = {"started": len(chosen) + 1, "looked_at": len(works) + 1, "left_over": 0, "impossible": 0}
    assert expected.items() <= done.items()
    assert done["by_lane"] == {"default": len(chosen), "bulk": 1}
    steps = taken(shop, shop.names.work_queue("default", "normal"))
    assert sorted(step.id for step in steps) == [each.id for each in chosen]
    assert {(step.run, step.n, step.seq, step.error) for step in steps} == {(2, 1, 1, None)}
    assert [(event.kind, event.run, event.by) for event in told(shop)] == [("rerun", 2, "replay")] * (len(chosen) + 1)
    kept = taken(shop, shop.names.parked("default"))
    assert sorted(kept, key=lambda each: each.id) == [each for each in works if each.type != "report.build"]
    again = (await invoked(shop, "dead", "replay", "--type", "report.*", "--yes", "--json")).json
    assert again["started"] == 0


async def test_a_limit_ends_the_rotation(shop: Installation) -> None:
    """So many are started, and no other message is lost or changed."""
    park(shop, [work(i) for i in range(WINDOW + 10)])
    done = (await invoked(shop, "dead", "replay", "--error", "ConnectionError", "--limit", "7", "--yes", "--json")).json
    assert done["started"] == 7
    assert shop.depth(shop.names.work_queue("default", "normal")) == 7
    await eventually(lambda: shop.depth(shop.names.parked("default")) == WINDOW + 3, "the others are parked")


async def test_what_runs_again_already_is_removed_not_started(shop: Installation) -> None:
    """A parked message of an earlier run is left over; a job that history calls alive stays; a copy starts once."""
    now = datetime.now(UTC)
    for number, run, state in ((1, 2, "succeeded"), (2, 1, "running"), (3, 1, "failed")):
        doc = {"_id": f"shop:r-{number:05}", "app": "shop", "id": f"r-{number:05}", "run": run, "seq": 1}
        shop.db.jobs.insert_one(doc | {"state": state, "accepted_at": now})
    park(shop, [work(1), work(2), work(3), work(3), work(4)])
    shop.publish_many([(shop.names.parked("default"), b"no work message")], exchange="")
    done = (await invoked(shop, "dead", "replay", "--all", "--yes", "--json")).json
    assert (done["started"], done["left_over"], done["looked_at"]) == (2, 2, 6)
    steps = taken(shop, shop.names.work_queue("default", "normal"))
    assert [(step.id, step.run) for step in steps] == [("r-00003", 2), ("r-00004", 2)]
    assert {body for _, body in shop.drain(shop.names.parked("default"))} == {work(2).encode(), b"no work message"}


async def test_what_no_queue_takes_stays_parked(shop: Installation) -> None:
    """Exit code 1, the jobs are parked as before, and history hears nothing of them."""
    with shop.channel() as channel:
        channel.queue_delete(shop.names.work_queue("default", "low"))
    park(shop, [work(1, priority="low"), work(2)])
    process = await _start(shop, "dead", "replay", "--all", "--yes")
    _, err = await process.communicate()
    assert process.returncode == 1
    assert b"no queue takes them" in err
    assert [each.id for each in taken(shop, shop.names.parked("default"))] == ["r-00001"]
    assert [event.id for event in told(shop)] == ["r-00002"]
    await asyncio.to_thread(shop.apply)


async def _start(installation: Installation, *arguments: str) -> asyncio.subprocess.Process:
    return await asyncio.create_subprocess_exec(
        sys.executable, "-m", "dispatcher.cli.main", *arguments,
        cwd=ROOT, env=environment(installation),
        stdin=asyncio.subprocess.DEVNULL, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE,
    )  # fmt: skip


MANY = 3_000


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGKILL])
async def test_a_replay_that_is_stopped_can_be_repeated(shop: Installation, number: signal.Signals) -> None:
    """Stopped in the middle, then run again: every job is started, none is lost; after Ctrl-C none twice."""
    park(shop, [work(i) for i in range(MANY)])
    queue, parked = shop.names.work_queue("default", "normal"), shop.names.parked("default")
    process = await _start(shop, "dead", "replay", "--tag", "parked", "--yes")
    await eventually(lambda: shop.depth(queue) > 0, "it has begun", every=0.005)
    process.send_signal(number)
    out, err = await process.communicate()
    started = shop.depth(queue)
    assert 0 < started < MANY, "it was stopped in the middle"
    if number == signal.SIGINT:
        assert process.returncode == 1
        assert b"run the same command again" in err
        assert f"{started} jobs started".encode() in out
    await eventually(lambda: shop.depth(parked) >= MANY - started, "what was not started is parked")
    await invoked(shop, "dead", "replay", "--tag", "parked", "--yes", "--json")
    counts = Counter(step.id for step in taken(shop, queue))
    assert len(counts) == MANY
    assert shop.depth(parked) == 0
    twice = sum(count - 1 for count in counts.values())
    assert twice <= (0 if number == signal.SIGINT else AHEAD * WINDOW)


async def test_jobs_are_retried_from_history(shop: Installation) -> None:
    """By state and other filters, in batches; what succeeded, or has no payload any more, is not started."""
    now = datetime.now(UTC)
    common = {"app": "shop", "type": "email.send", "lane": "default", "priority": "normal", "accepted_at": now}
    common |= {"seq": 1, "attempts": [], "tags": [], "key_id": "k", "run": 3}
    states = ["failed", "timed_out", "cancelled", "succeeded", "running"]
    documents = [
        {"_id": f"shop:h-{i}", "id": f"h-{i}", "state": states[i % 5], "payload": {"i": i}, **common}
        for i in range(600)
    ]
    del documents[0]["payload"]
    documents[5]["redacted"] = ["to"]
    shop.db.jobs.insert_many(documents)
    dry = (await invoked(shop, "jobs", "retry", "--state", "failed", "--dry-run", "--json")).json
    assert dry == {"dry_run": True, "matching": 120}
    assert shop.depth(shop.names.work_queue("default", "normal")) == 0
    process = await _start(shop, "jobs", "retry", "--state", "failed", "--yes", "--json")
    out, _ = await process.communicate()
    done = json.loads(out)
    assert process.returncode == 1, "two could not be started"
    assert (done["started"], done["looked_at"], done["impossible"]) == (118, 120, 2)
    steps = taken(shop, shop.names.work_queue("default", "normal"))
    assert {step.id for step in steps} == {d["id"] for d in documents if d["state"] == "failed"} - {"h-0", "h-5"}
    assert {step.run for step in steps} == {4}
    assert {(event.run, event.by) for event in told(shop)} == {(4, "retry")}
    usual = (await invoked(shop, "jobs", "retry", "--app", "shop", "--dry-run")).out
    assert usual.startswith("would retry 360 jobs"), "failed, timed out and cancelled ones"
    limited = ("--state", "timed_out", "--state", "cancelled", "--limit", "201")
    assert (await invoked(shop, "jobs", "retry", *limited, "--yes", "--json")).json["started"] == 201
    assert len(taken(shop, shop.names.work_queue("default", "normal"))) == 201


@pytest.mark.parametrize(
    ("arguments", "code", "says"),
    [
        ("dead replay", 2, "--all"),
        ("dead replay x --type a.b", 2, "not both"),
        ("dead replay x --dry-run", 2, "not both"),
        ("dead replay --lane nowhere --yes", 1, "default, bulk"),
        ("jobs retry --state running --yes", 1, "running cannot be retried"),
    ],
)
async def test_a_bulk_command_must_be_meant(shop: Installation, arguments: str, code: int, says: str) -> None:
    """Nothing is started by an empty filter, nor where a job and a filter are named."""
    process = await _start(shop, *arguments.split())
    out, err = await process.communicate()
    assert (process.returncode, out) == (code, b"")
    assert says in err.decode()
