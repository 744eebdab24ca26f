"""docs/retries.md: its examples pass, its figures are those of the code, its commands do what it says."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from config import Settings, load_settings
from consumers import Registry, Retry
from consumers.worker import Worker
from dispatcher.core.retry import RetryPolicy, delay_after
from dispatcher.services.intake import Intake
from dispatcher.services.recorder import Recorder
from schemas import RetrySpec
from tests.acceptance.pages import suite, written
from tests.acceptance.readme import ROOT, blocks
from tests.conftest import run_services
from tests.support import Installation, eventually

pytestmark = pytest.mark.acceptance

PAGE = ROOT / "docs" / "retries.md"
jobs = Registry()


@jobs.handler("test.hopeless", retry=Retry(max_attempts=1))
async def hopeless(payload: dict[str, Any]) -> None:
    """Fails for good."""
    raise ValueError("never")


def rows(heading: str) -> list[list[str]]:
    """The cells of the table whose head begins so."""
    text = PAGE.read_text()
    table = text[text.index(f"| {heading} |") :].split("\n\n")[0]
    return [[cell.strip(" `") for cell in line.strip("|").split("|")] for line in table.splitlines()[2:]]


def test_the_examples_pass(tmp_path: Path) -> None:
    """Every Python block is a file of tests, which pass."""
    assert written(PAGE) >= 6
    assert f"{written(PAGE)} passed" in suite(PAGE, tmp_path)


def test_the_table_of_fields_is_that_of_the_code() -> None:
    """Names, bounds and defaults: of the message, of the handler and of the configuration."""
    table = {name: (bounds, default) for name, _, bounds, default in rows("field")}
    assert list(table) == list(RetrySpec.model_fields) == list(Retry.__dataclass_fields__)
    policy, configured = RetryPolicy(), load_settings({}).retry
    for name in type(configured).model_fields:
        bounds, default = table[name]
        assert float(default) == getattr(policy, name) == getattr(configured, name), name
        number = int if name == "max_attempts" else float
        low, _, high = bounds.replace(",", "").partition(" to ")
        for value, fits in ((low, True), (high, True), (float(low) - 1, False), (float(high) + 1, False)):
            assert taken({name: number(value)}) == fits, (name, value)


def taken(retry: dict[str, Any]) -> bool:
    """Whether a message may say so."""
    try:
        RetrySpec.model_validate(retry)
    except ValueError:
        return False
    return True


def test_the_table_of_delays_is_what_is_waited() -> None:
    """Row for row, with the formula that stands above it."""
    assert len(rows("`base` | `factor`")) >= 4
    for base, factor, most, delays in rows("`base` | `factor`"):
        policy = RetryPolicy(base=float(base), factor=float(factor), max_delay=float(most))
        for n, delay in enumerate(delays.split(", "), start=1):
            assert delay_after(policy, n, 0.5) == float(delay), (base, n)
            assert min(float(base) * float(factor) ** (n - 1), float(most)) == float(delay)


async def test_the_commands_run_it_again(installed: Installation, settings: Settings) -> None:
    """The shell block, with two jobs that failed for good; both have a second run afterwards."""
    (script,) = blocks("sh", PAGE)
    key = await installed.create_key()
    env = os.environ | installed.environment()
    env["PATH"] = f"{Path(sys.executable).parent}:{env['PATH']}"
    async with run_services(Intake(settings), Recorder(settings), Worker(settings, jobs, f"{__name__}:jobs")):
        for job_id in ("hopeless-1", "hopeless-2"):
            installed.publish("test.hopeless", {"id": job_id}, key)
            await installed.finished(job_id)

        def run() -> str:
            done = subprocess.run(["bash", "-e"], input=script, env=env, capture_output=True, text=True, timeout=100)
            assert done.returncode == 0, done.stdout + done.stderr
            return done.stdout

        assert "hopeless-1" in await asyncio.to_thread(run)
        for job_id in ("hopeless-1", "hopeless-2"):
            await eventually(
                lambda job_id=job_id: [a["run"] for a in (installed.job(job_id) or {})["attempts"]] == [1, 2],
                f"{job_id} has run again",
            )
