"""`consumers.testing` holds: the same jobs on real servers come to the same states, attempts and delays."""

from __future__ import annotations

import asyncio
import itertools
from typing import Any

import pytest

from config import Settings
from consumers import Cancel, Context, Registry, Retry, Snooze
from consumers.testing import Simulation
from consumers.worker import Worker
from dispatcher.services.intake import Intake
from dispatcher.services.recorder import Recorder
from tests.conftest import Running, make_settings
from tests.support import Installation

pytestmark = pytest.mark.integration

jobs = Registry()
TARGET = f"{__name__}:jobs"


class Down(ConnectionError):
    """An error of the handlers' own, with bases."""


@jobs.handler("fine", timeout=20)
async def fine(payload: dict[str, Any], ctx: Context) -> dict[str, Any]:
    """Succeeds at once, and says how far it was."""
    ctx.progress(1, 3, "a third")
    return {"attempt": ctx.attempt, **payload}


@jobs.handler("flaky", retry=Retry(base=0.5, factor=1.5))
def flaky(payload: dict[str, Any], ctx: Context) -> str:
    """Fails twice, in a thread."""
    if ctx.attempt < 3:
        raise Down("hung up")
    return "up"


@jobs.handler("picky", retry=Retry(max_attempts=3, base=0.25, on=("OSError",), never=("Down",)))
async def picky(payload: dict[str, Any]) -> None:
    """Fails with what is tried again, or with what is not."""
    raise Down("never") if payload["never"] else ConnectionResetError("again")


@jobs.handler("slow", timeout=0.5, retry=Retry(max_attempts=2, base=0.25, on=(TimeoutError,)))
async def slow(payload: dict[str, Any]) -> None:
    """Runs out of time, twice."""
    await asyncio.sleep(3_600)


@jobs.handler("snoozy")
async def snoozy(payload: dict[str, Any], ctx: Context) -> int:
    """Puts itself off twice, then says at which attempt it is."""
    SNOOZED[ctx.id] = SNOOZED.get(ctx.id, 0) + 1
    if SNOOZED[ctx.id] < 3:
        raise Snooze(0.75)
    return ctx.attempt


@jobs.handler("cancelled")
async def cancelled(payload: dict[str, Any]) -> None:
    """Ends itself."""
    raise Cancel("done already")


@jobs.handler("typed")
async def typed(payload: dict[str, int]) -> None:
    """Takes whole numbers alone."""


@jobs.handler("unstorable")
async def unstorable(payload: dict[str, Any]) -> object:
    """Returns what is no JSON."""
    return object()


@jobs.handler("configured")
async def configured(payload: dict[str, Any]) -> None:
    """Has its lane, timeout and retry from the configuration."""
    await asyncio.sleep(3_600)


@jobs.handler("private")
async def private(payload: dict[str, Any]) -> dict[str, Any]:
    """Returns what history must not have, or fails with it."""
    if payload["fail"]:
        raise ValueError(payload["iban"])
    return payload


SNOOZED: dict[str, int] = {}
TYPES = """{
    "configured": {"lane": "bulk", "timeout": 0.3, "retry": {"max_attempts": 2, "base": 0.375}},
    "private": {"redact": ["iban"]}
}"""

#: The jobs: their ids, types, and what is published.
CASES: dict[str, tuple[str, dict[str, Any]]] = {
    "fine": ("fine", {"payload": {"a": [1, None, "x"]}, "tags": ["t"], "timeout": 5}),
    "flaky": ("flaky", {}),
    "flaky-less": ("flaky", {"retry": {"max_attempts": 2}, "priority": "high"}),
    "again": ("picky", {"payload": {"never": False}}),
    "never": ("picky", {"payload": {"never": True}}),
    "slow": ("slow", {}),
    "snoozy": ("snoozy", {"retry": {"max_attempts": 1}}),
    "cancelled": ("cancelled", {}),
    "typed": ("typed", {"payload": {"a": "x"}}),
    "unstorable": ("unstorable", {}),
    "nobody": ("nobody.home", {"lane": "bulk"}),
    "configured": ("configured", {}),
    "later": ("fine", {"delay": 1, "expires": 60, "deadline": 50}),
    "expired": ("nobody.home", {"delay": 1, "expires": 0.5}),
    "private": ("private", {"payload": {"fail": False, "iban": "DE1"}}),
    "private-failed": ("private", {"payload": {"fail": True, "iban": "DE1"}, "retry": {"max_attempts": 1}}),
}


@pytest.fixture(scope="module")
def settings() -> Settings:
    """A job without a handler ends after four seconds, since this test waits for it."""
    return make_settings(
        DISPATCHER_WORKER__NO_HANDLER_DELAY="2", DISPATCHER_WORKER__NO_HANDLER_LIMIT="2.9", DISPATCHER_TYPES=TYPES
    )


def told(document: dict[str, Any]) -> dict[str, Any]:
    """What a document says, but for what chance and the clock decide."""
    plain = {
        name: value
        for name, value in document.items()
        if name not in ("rev", "key_id", "wait_ms", "run_ms", "attempts", "run_at") and not name.endswith("_at")
    }
    attempts = []
    for attempt in document["attempts"]:
        kept = {k: v for k, v in attempt.items() if k not in ("execution", "worker", "started_at", "finished_at")}
        if "error" in kept:
            kept["error"] = {k: v for k, v in kept["error"].items() if k != "traceback"}
        attempts.append(kept)
    if "error" in plain:
        plain["error"] = {k: v for k, v in plain["error"].items() if k != "traceback"}
    if "progress" in plain:
        plain["progress"] = {k: v for k, v in plain["progress"].items() if k not in ("at", "execution")}
    return plain | {"attempts": attempts, "fields": sorted(set(document) - {"rev"})}


def pauses(document: dict[str, Any]) -> list[float]:
    """Seconds between the end of each attempt and the start of the next."""
    attempts = document["attempts"]
    return [
        (later["started_at"] - earlier["finished_at"]).total_seconds()
        for earlier, later in itertools.pairwise(attempts)
    ]


async def test_a_simulation_comes_to_what_real_servers_come_to(
    installed: Installation, settings: Settings, running: Running
) -> None:
    """Every document is the same but for times and ids; no pause is shorter, and none much longer."""
    SNOOZED.clear()
    with Simulation(jobs, settings=settings, app="shop") as sim:
        for job_id, (job_type, fields) in CASES.items():
            sim.submit(job_type, id=job_id, **fields)
        sim.run()
        simulated = {job.id: job.document for job in sim.jobs}
        parked = {job.id for job in sim.parked}
    SNOOZED.clear()
    key = await installed.create_key()
    async with running(Intake(settings), Recorder(settings), Worker(settings, jobs, TARGET)):
        for job_id, (job_type, fields) in CASES.items():
            installed.publish(job_type, {"id": job_id, **fields}, key)
        real = {job_id: await installed.finished(job_id) for job_id in CASES}
    for job_id in CASES:
        assert told(simulated[job_id]) == told(real[job_id])
        for mine, theirs in zip(pauses(simulated[job_id]), pauses(real[job_id]), strict=True):
            assert mine - 0.002 <= theirs < mine + 10, job_id  # far above what a busy machine adds
    assert parked == {
        "flaky-less",
        "again",
        "never",
        "slow",
        "typed",
        "unstorable",
        "nobody",
        "configured",
        "private-failed",
    }
    assert len(installed.drain(installed.names.parked("default"))) == len(parked - {"nobody", "configured"})
    assert len(installed.drain(installed.names.parked("bulk"))) == 2
