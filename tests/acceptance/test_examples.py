"""Each example runs as its page says, and prints what became of its jobs."""

from __future__ import annotations

import asyncio
import os
import re
import subprocess
import sys
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import pytest_asyncio

from consumers.worker import Worker
from dispatcher.services.intake import Intake
from dispatcher.services.recorder import Recorder
from dispatcher.services.scheduler import Scheduler
from examples.handlers import jobs
from tests.acceptance.readme import ROOT, blocks
from tests.conftest import run_services
from tests.support import Installation

pytestmark = [pytest.mark.acceptance, pytest.mark.asyncio(loop_scope="module")]

PAGE = ROOT / "examples" / "README.md"
#: Those that are run; the others are no examples by themselves.
EXAMPLES = ("ids", "unique", "groups", "priorities", "retries", "expiry", "combined")
APART = {"__init__", "handlers", "shop"}

Printed = dict[str, list[list[str]]]


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def printed(installed: Installation) -> AsyncIterator[Printed]:
    """What each printed, line by line, cells apart; they run beside one another, in front of one worker."""
    settings = installed.settings
    env = os.environ | installed.environment() | {"AMQP_URL": installed.amqp_url}
    env |= {"DISPATCHER_API_KEY": await installed.create_key()}
    env["PATH"] = f"{Path(sys.executable).parent}:{env['PATH']}"

    def run(name: str) -> list[list[str]]:
        command = [sys.executable, "-m", f"examples.{name}"]
        done = subprocess.run(command, env=env, cwd=ROOT, capture_output=True, text=True, timeout=100)
        assert done.returncode == 0, f"{name}: {done.stdout}{done.stderr}"
        return [re.split(r" {2,}", line) for line in done.stdout.splitlines()]

    worker = Worker(settings, jobs, "examples.handlers:jobs")
    async with run_services(Intake(settings), Recorder(settings), Scheduler(settings), worker):
        found = await asyncio.gather(*(asyncio.to_thread(run, name) for name in EXAMPLES))
    yield dict(zip(EXAMPLES, found, strict=True))


async def test_every_example_is_run_and_named() -> None:
    """By this module and by the page; and the page names no other."""
    files = {path.stem for path in PAGE.parent.glob("*.py")}
    assert files == {*EXAMPLES, *APART}
    named = set(re.findall(r"\((\w+)\.py\)", PAGE.read_text()))
    assert named == files - {"__init__"}
    (script,) = blocks("sh", PAGE)
    assert "python -m examples.groups" in script


async def test_ids(printed: Printed) -> None:
    """One job, whose first content stands."""
    assert printed["ids"] == [
        ["sent tea: accepted"],
        ["sent tea: known already"],
        ["sent coffee: known already"],
        ["result", "attempts", "sent_again"],
        ["{'taken': 'tea'}", "1 succeeded", "2"],
    ]


async def test_unique(printed: Printed) -> None:
    """May's second is a duplicate; June's first failed, so its second runs, and its third is a duplicate of that."""
    assert printed["unique"][1:] == [
        ["1", "May", "succeeded", "-"],
        ["2", "May", "duplicate", "1"],
        ["3", "June", "failed", "-"],
        ["4", "June", "succeeded", "-"],
        ["5", "June", "duplicate", "4"],
    ]


async def test_groups(printed: Printed) -> None:
    """Five in one batch; two fail, one of them for good, the other is sent alone."""
    assert printed["groups"][1:] == [
        ["ann@example.org", "succeeded", "1 succeeded", "one of 5"],
        ["bob@example.org", "succeeded", "1 succeeded", "one of 5"],
        ["nobody", "failed", "1 failed", "no address"],
        ["busy@example.org", "succeeded", "1 failed, 2 succeeded", "one of 1"],
        ["cid@example.org", "succeeded", "1 succeeded", "one of 5"],
        ["batches: 1"],
    ]


async def test_priorities(printed: Printed) -> None:
    """The critical ones first, together; then the low ones."""
    rows = printed["priorities"][1:]
    assert [row[0] for row in rows] == ["critical"] * 3 + ["low"] * 3
    assert {row[2] for row in rows} == {"with 2 others"}
    assert sorted(row[1] for row in rows) == list("012345")


async def test_retries(printed: Printed) -> None:
    """Each ends as its policy says; pauses double; a snooze spends no attempt."""
    ann, bob, nobody, shop = printed["retries"][1:]
    assert ann[:3] == ["ann", "succeeded", "1 failed, 2 failed, 3 succeeded"]
    first, second = map(float, ann[3].split(", "))
    assert 0.2 <= first < second
    assert second >= 0.5
    assert bob[:3] == ["bob", "failed", "1 failed, 2 failed"]
    assert nobody == ["nobody", "failed", "1 failed", "-", "no such number"]
    assert (shop[:2], shop[2].split(", ")[-1], shop[4]) == (
        ["the shop", "succeeded"],
        "1 succeeded",
        "answered at attempt 1",
    )


async def test_expiry(printed: Printed) -> None:
    """What is too late does not start, alone or in a group; what finished too late says so."""
    assert printed["expiry"][1:] == [
        ["today only", "expired", "-", "no"],
        ["soon", "succeeded", "made", "yes"],
        ["tea", "succeeded", "made with 1 others", "no"],
        ["milk", "expired", "-", "no"],
        ["salt", "succeeded", "made with 1 others", "no"],
    ]


async def test_combined(printed: Printed) -> None:
    """Ten messages are five jobs in two batches, one expires, one is retried alone; two are one of a kind."""
    rows = printed["combined"]
    assert rows[1:] == [
        ["ann", "succeeded", "high", "1 succeeded", "one of 2", "1"],
        ["bob", "succeeded", "high", "1 failed, 2 succeeded", "one of 1", "1"],
        ["cid", "succeeded", "low", "1 succeeded", "one of 3", "1"],
        ["dan", "expired", "low", "none", "-", "1"],
        ["eve", "succeeded", "low", "1 succeeded", "one of 3", "1"],
        ["cid's reminder 0", "succeeded", "low", "1 succeeded", "one of 3", "0"],
        ["cid's reminder 1", "duplicate", "-", "none", "-", "0"],
        ["batches: 2"],
    ]
