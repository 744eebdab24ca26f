"""Publisher to finished with history: ours beside Celery, in alternating runs."""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from bench import celery_side
from bench.ours import installation
from bench.processes import Child, loop_ms, wait_quiet
from bench.progress import say
from bench.servers import CpuMeter, Servers

#: A run waits at most this long for a machine that is busy with something else, in seconds.
PATIENCE = 60.0
QUIET = 0.15
#: The sides of the measurement of ids.
WITHOUT_IDS, WITH_IDS = "without ids", "with ids"


@dataclass(frozen=True)
class Run:
    """One run of one side."""

    side: str
    jobs: int
    seconds: float
    publish_seconds: float
    cpu_per_1000: dict[str, float]
    #: Share of the CPUs that others used just before, and what a fixed loop took then.
    busy_before: float
    loop_ms: float

    @property
    def rate(self) -> float:
        """Jobs a second, from the first publish to the last document."""
        return self.jobs / self.seconds


def compare(servers: Servers, runs: int, jobs: int, celery_jobs: int, tuning: celery_side.Tuning) -> list[Run]:
    """Alternate: ours, Celery, ours, Celery, …"""
    made: list[Run] = []
    for number in range(1, runs + 1):
        made.append(_say(number, runs, ours(servers, jobs)))
        if celery_jobs:
            made.append(_say(number, runs, celery(servers, celery_jobs, tuning)))
    return made


def compare_ids(servers: Servers, runs: int, jobs: int) -> list[Run]:
    """Alternate: jobs without ids, and with them, which intake claims in MongoDB."""
    made: list[Run] = []
    for number in range(1, runs + 1):
        for side, plan in ((WITHOUT_IDS, "anonymous"), (WITH_IDS, "tiny")):
            made.append(_say(number, runs, ours(servers, jobs, side, plan)))
    return made


def _say(number: int, runs: int, run: Run) -> Run:
    say(f"run {number} of {runs}: {run.side} {run.rate:,.0f} jobs/s ({run.jobs:,} jobs in {run.seconds:.1f} s)")
    return run


def quiet() -> tuple[float, float]:
    """Wait for a quiet machine; returns how busy others keep it, and its speed as `loop_ms`."""
    busy = wait_quiet(QUIET, PATIENCE)
    if busy >= QUIET:
        say(f"the machine is busy with something else ({busy:.0%}): the next figures are noisy")
    return busy, loop_ms()


def ours(servers: Servers, jobs: int, side: str = "ours", plan: str = "tiny") -> Run:
    """One run of ours."""
    with (
        tempfile.TemporaryDirectory() as folder,
        installation(servers, Path(folder)) as given,
        given.publisher(plan, jobs) as publisher,
    ):
        return _measure(side, jobs, publisher, given.meter, given.wait_succeeded)


def celery(servers: Servers, jobs: int, tuning: celery_side.Tuning) -> Run:
    """One run of Celery."""
    with (
        tempfile.TemporaryDirectory() as folder,
        celery_side.deployment(servers, Path(folder), tuning) as given,
        given.publisher(jobs) as publisher,
    ):
        return _measure("Celery", jobs, publisher, given.meter, given.wait_stored)


def _measure(
    side: str,
    jobs: int,
    publisher: Child,
    meter: Callable[[Child], CpuMeter],
    wait: Callable[[int, float], float],
) -> Run:
    """Let the publisher go, and wait until every job, and the first one of the set-up, is done."""
    machine = quiet()
    metering = meter(publisher)
    publisher.write_line("go")
    began, published = map(float, publisher.read_line().split())
    ended = wait(jobs + 1, 60 + jobs / 50)
    cpu = {role: seconds * 1000 / jobs for role, seconds in metering.spent().items()}
    return Run(side, jobs, ended - began, published - began, cpu, *machine)
