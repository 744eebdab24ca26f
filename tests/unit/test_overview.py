"""What `top` and `watch` show, from looks and documents."""

from __future__ import annotations

from typing import Any

from dispatcher.core.overview import HistoryLook, Look, overview
from dispatcher.core.topology import Names
from dispatcher.core.watching import news
from tests.unit.samples import NOW
from tests.unit.test_explaining import attempt, make_doc

NAMES = Names("p.")
PLACE = ("default", "normal")


def test_two_looks_make_rates() -> None:
    """What came in 2 s, less what the queue grew by, is what was taken."""
    queue = NAMES.work_queue(*PLACE)
    queues: dict[str, Any] = {queue: (30, 2), NAMES.delay(3): (4, 0), NAMES.parked("default"): (7, 0), "p.gone": None}
    history = HistoryLook({PLACE: NOW - 5_000}, {(*PLACE, "w1"): 3}, {PLACE: 40})
    shown = overview(NAMES, ["default"], Look(NOW - 2_000, {queue: (10, 2)}), Look(NOW, queues, history))
    (row,) = [row for row in shown["lanes"] if (row["lane"], row["priority"]) == PLACE]
    assert row == {
        "lane": "default", "priority": "normal", "ready": 30, "consumers": 2, "unacknowledged": None, "running": 3,
        "oldest_seconds": 5.0, "in_per_second": 20.0, "out_per_second": 10.0,
    }  # fmt: skip
    assert shown["workers"] == [{"worker": "w1", "running": 3}]
    assert shown["retries"] == [{"level": 3, "seconds": 1.0, "waiting": 4}]
    assert shown["parked"] == {"default": 7}
    assert shown["missing"] == ["p.gone"]


def test_workers_without_a_job_are_idle() -> None:
    """All consume the lane's suspects; history knows who runs something, in this lane or another."""
    queues = {NAMES.suspect("default"): (0, 3), NAMES.suspect("bulk"): (0, 1), NAMES.work_queue(*PLACE): (9, 1)}
    history = HistoryLook(running={(*PLACE, "w1"): 3, ("default", "low", "w1"): 1, ("bulk", "low", "w2"): 5})
    held = {NAMES.work_queue(*PLACE): 12}
    shown = overview(NAMES, ["default", "bulk"], Look(NOW, {}), Look(NOW, queues, history, held))
    assert shown["serving"] == [
        {"lane": "default", "workers": 3, "idle": 2}, {"lane": "bulk", "workers": 1, "idle": 0},
    ]  # fmt: skip
    assert {(row["lane"], row["priority"]): row["unacknowledged"] for row in shown["lanes"]}[PLACE] == 12
    unknown = overview(NAMES, ["default"], Look(NOW, {}), Look(NOW, queues))
    assert unknown["serving"] == [{"lane": "default", "workers": 3, "idle": None}]


def test_what_is_not_known_is_not_zero() -> None:
    """While MongoDB is away, and for queues that are not there, nothing is said."""
    shown = overview(NAMES, ["default"], Look(NOW - 1_000, {}), Look(NOW, {}))
    assert shown["history"] is False
    assert {row["running"] for row in shown["lanes"]} == {None}
    assert {row["ready"] for row in shown["lanes"]} == {None}
    assert shown["queues"]["history"] is None


def test_news_are_told_once() -> None:
    """A first look tells everything so far; the next only what is new; the same document nothing."""
    first = make_doc("retrying", attempts=[attempt(1, "failed")], seq=2, due_at=NOW + 9_000)
    lines = [line for _, line in news(None, first)]
    assert lines == [
        "accepted: email.send in lane default, priority normal", "run 1, attempt 1 started on host-1",
        "run 1, attempt 1 failed", "state retrying, due in 7.0 s",
    ]  # fmt: skip
    assert list(news(first, first)) == []
    attempts = [*first["attempts"], attempt(2, "succeeded")]
    second = first | {"attempts": attempts, "state": "succeeded", "due_at": None}
    assert [line for _, line in news(first, second)] == [
        "run 1, attempt 2 started on host-1", "run 1, attempt 2 succeeded", "state succeeded",
    ]  # fmt: skip


def test_what_happens_in_one_millisecond_is_told_in_its_order() -> None:
    """A start before its end, a state after what led to it."""
    once = attempt(1, "failed")
    doc = make_doc("failed", attempts=[once | {"finished_at": once["started_at"]}], seq=2)
    doc |= {"accepted_at": once["started_at"], "finished_at": once["started_at"]}
    assert [line.split(":")[0] for _, line in news(None, doc)] == [
        "accepted", "run 1, attempt 1 started on host-1", "run 1, attempt 1 failed", "state failed",
    ]  # fmt: skip
