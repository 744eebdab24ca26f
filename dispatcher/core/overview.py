"""What `dispatcher top` shows: two looks at queues and history, put together."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from dispatcher.core import ladder
from dispatcher.core.topology import Names
from schemas import PRIORITIES

Place = tuple[str, str]
#: Queues that ought to be empty, or nearly, by the name of what is shown.
SINGLE = ("intake", "intake_deferred", "history", "rejected", "unrouted", "stray", "unrecorded")


@dataclass(frozen=True, slots=True)
class Look:
    """What was there at a moment, in milliseconds since the epoch. ``history`` is None while MongoDB is away.

    ``queues`` has ready messages and consumers by name; None for a queue that is not there.
    """

    at: int
    queues: Mapping[str, tuple[int, int] | None]
    history: HistoryLook | None = None
    #: Messages that consumers hold, by queue; None where the management API cannot be asked.
    held: Mapping[str, int] | None = None


@dataclass(frozen=True, slots=True)
class HistoryLook:
    """The part that history knows, by lane and priority; ``accepted`` since the look before."""

    oldest: Mapping[Place, int | None] = field(default_factory=dict)
    running: Mapping[tuple[str, str, str], int] = field(default_factory=dict)
    accepted: Mapping[Place, int] = field(default_factory=dict)


def overview(names: Names, lanes: Iterable[str], before: Look, now: Look) -> dict[str, Any]:
    """The document of ``top --once --json``."""
    lanes = tuple(lanes)
    places = [(lane, priority) for lane in lanes for priority in PRIORITIES]
    return {
        "at": now.at,
        "history": now.history is not None,
        "lanes": [_lane(names, place, before, now) for place in places],
        "workers": _workers(now.history),
        "serving": [_serving(names, lane, now) for lane in lanes],
        "retries": _retries(names, now),
        "queues": {name: _ready(now, getattr(names, name)) for name in SINGLE},
        "parked": {lane: _ready(now, names.parked(lane)) for lane in lanes},
        "suspect": {lane: _ready(now, names.suspect(lane)) for lane in lanes},
        "missing": sorted(name for name, count in now.queues.items() if count is None),
    }


def _lane(names: Names, place: Place, before: Look, now: Look) -> dict[str, Any]:
    queue, history = names.work_queue(*place), now.history
    count = now.queues.get(queue)
    since = history.oldest.get(place) if history else None
    running = sum(n for key, n in history.running.items() if key[:2] == place) if history else None
    return {
        "lane": place[0],
        "priority": place[1],
        "ready": count[0] if count else None,
        "consumers": count[1] if count else None,
        "unacknowledged": now.held.get(queue) if now.held is not None else None,
        "running": running,
        "oldest_seconds": None if since is None else round(max(now.at - since, 0) / 1000, 1),
        **_rates(place, queue, before, now),
    }


def _rates(place: Place, queue: str, before: Look, now: Look) -> dict[str, float | None]:
    """Jobs accepted a second, and taken by workers a second: what came less what the queue grew by."""
    seconds = (now.at - before.at) / 1000
    then, count = before.queues.get(queue), now.queues.get(queue)
    if seconds <= 0 or now.history is None or then is None or count is None:
        return {"in_per_second": None, "out_per_second": None}
    came = now.history.accepted.get(place, 0)
    taken = max(came - (count[0] - then[0]), 0)
    return {"in_per_second": round(came / seconds, 1), "out_per_second": round(taken / seconds, 1)}


def _workers(history: HistoryLook | None) -> list[dict[str, Any]]:
    counts: Counter[str] = Counter()
    for (_, _, worker), number in (history.running if history else {}).items():
        counts[worker] += number
    return [{"worker": worker, "running": number} for worker, number in sorted(counts.items())]


def _serving(names: Names, lane: str, now: Look) -> dict[str, Any]:
    """Workers of a lane, and how many of them history says run nothing.

    Each worker consumes the lane's suspects for as long as it runs, and its other queues only while it has places.
    """
    count = now.queues.get(names.suspect(lane))
    workers = count[1] if count else None
    if workers is None or now.history is None:
        return {"lane": lane, "workers": workers, "idle": None}
    busy = {worker for worker_lane, _, worker in now.history.running if worker_lane == lane}
    return {"lane": lane, "workers": workers, "idle": max(workers - len(busy), 0)}


def _retries(names: Names, now: Look) -> list[dict[str, Any]]:
    found = []
    for level in range(ladder.LEVELS):
        waiting = _ready(now, names.delay(level))
        if waiting:
            found.append({"level": level, "seconds": (1 << level) / ladder.UNITS_PER_SECOND, "waiting": waiting})
    return found


def _ready(look: Look, queue: str) -> int | None:
    count = look.queues.get(queue)
    return count[0] if count else None
