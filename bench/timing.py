"""Latency and the punctuality of retries: ours only, read from history."""

from __future__ import annotations

import tempfile
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any

from bench.compare import quiet
from bench.ours import Installation, installation
from bench.progress import say
from bench.servers import Servers

RATE = 200.0
BURST = 1_000


@dataclass(frozen=True)
class Timing:
    """Milliseconds over all jobs of one measurement."""

    what: str
    jobs: int
    min: float
    p50: float
    p99: float
    max: float
    #: Executions beyond those expected: an attempt that ran twice.
    extra: int = 0


def latency(servers: Servers, seconds: float) -> Timing:
    """From the client's publish to the first line of the handler, at a steady rate."""
    count = round(RATE * seconds)
    with tempfile.TemporaryDirectory() as folder, installation(servers, Path(folder)) as given:
        _publish(given, "stamp", count, RATE)
        found = given.jobs.find({"type": "bench.stamp", "payload.sent_ns": {"$gt": 0}}, {"payload": 1, "result": 1})
        values = [(job["result"]["started_ns"] - job["payload"]["sent_ns"]) / 1e6 for job in found]
    return _timing(f"publisher to start at {RATE:g} jobs/s", values)


def retry_rate(servers: Servers, seconds: float) -> Timing:
    """Lateness of retries at a steady rate, over backoffs of one and two hops of the delay ladder."""
    count = round(RATE * seconds)
    with tempfile.TemporaryDirectory() as folder, installation(servers, Path(folder)) as given:
        _publish(given, "retries", count, RATE)
        return _timing(f"retry late at {RATE:g} retries/s", *_lateness(given.jobs))


def retry_burst(servers: Servers) -> Timing:
    """Lateness of retries when many jobs, all running, fail at the same moment."""
    extra = {"DISPATCHER_WORKER__CONCURRENCY": str(BURST)}
    with tempfile.TemporaryDirectory() as folder, installation(servers, Path(folder), extra) as given:
        _publish(given, "burst", BURST, 0)
        return _timing(f"retry late, {BURST:,} failing at once", *_lateness(given.jobs))


def _publish(given: Installation, plan: str, count: int, rate: float) -> None:
    with given.publisher(plan, count, rate) as publisher:
        quiet()
        publisher.write_line("go")
        publisher.read_line()
        given.wait_succeeded(count + 1, 60)


def _lateness(jobs: Any) -> tuple[list[float], int]:
    """Start of attempt 2 minus end of attempt 1 minus the backoff, in milliseconds; and extra executions."""
    values, extra = [], 0
    for job in jobs.find({"type": "bench.flaky"}, {"attempts": 1, "retry": 1}):
        attempts = {attempt["n"]: attempt for attempt in reversed(job["attempts"])}  # the first of each number
        pause: timedelta = attempts[2]["started_at"] - attempts[1]["finished_at"]
        values.append(pause.total_seconds() * 1000 - job["retry"]["base"] * 1000)
        extra += len(job["attempts"]) - 2
    return values, extra


def _timing(what: str, values: list[float], extra: int = 0) -> Timing:
    values.sort()
    made = Timing(what, len(values), values[0], _at(values, 0.5), _at(values, 0.99), values[-1], extra)
    say(f"{what}: p50 {made.p50:.1f} ms, p99 {made.p99:.1f} ms, most {made.max:.1f} ms, {extra} ran again")
    return made


def _at(values: list[float], fraction: float) -> float:
    return values[min(int(len(values) * fraction), len(values) - 1)]
