"""`dispatcher worker --reload`: a change of the handlers' files starts the worker anew, and loses nothing."""

from __future__ import annotations

import asyncio
import json
import os
import signal
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from config import Settings
from dispatcher.services.intake import Intake
from dispatcher.services.recorder import Recorder
from tests.conftest import Running
from tests.processes import ServiceProcess
from tests.support import Installation, eventually

pytestmark = pytest.mark.integration

HANDLERS = """
import asyncio
from consumers import Registry
from parts.words import WORD

jobs = Registry()

@jobs.handler("say")
async def say(payload):
    await asyncio.sleep(payload.get("seconds", 0))
    return "{version} " + WORD
"""


def write(folder: Path, version: str, word: str = "one") -> None:
    """The handler project: a module, and a package that it uses."""
    (folder / "parts").mkdir(exist_ok=True)
    (folder / "parts" / "__init__.py").touch()
    (folder / "parts" / "words.py").write_text(f"WORD = {word!r}\n")
    (folder / "handlers.py").write_text(HANDLERS.replace("{version}", version))


def starts(worker: ServiceProcess) -> int:
    """How often a worker has come so far as to serve."""
    return sum(line.get("event") == "started" for line in worker.lines())


async def started(worker: ServiceProcess, times: int) -> None:
    """Wait until a worker has started so often."""
    await eventually(lambda: starts(worker) >= times, f"start {times}: {worker.output[-1500:]}")


@asynccontextmanager
async def reloading(installation: Installation, folder: Path) -> AsyncIterator[ServiceProcess]:
    """A worker that reloads, in a folder."""
    env = {"DISPATCHER_WORKER__GRACE": "20"}
    async with ServiceProcess(installation, "worker", "handlers:jobs", "--reload", env=env, folder=folder) as worker:
        await started(worker, 1)
        try:
            yield worker
        finally:
            if worker.process.returncode is None:
                await worker.terminate(timeout=60)


def child_of(worker: ServiceProcess) -> int:
    """The worker's own process."""
    text = Path(f"/proc/{worker.process.pid}/task/{worker.process.pid}/children").read_text()
    (pid,) = map(int, text.split())
    return pid


def gone(pid: int) -> Callable[[], bool]:
    """Whether a process has ended (one that nobody waits for stays as a zombie where there is no init)."""

    def look() -> bool:
        try:
            return "\nState:\tZ" in Path(f"/proc/{pid}/status").read_text()
        except OSError:
            return True

    return look


async def test_edits_are_taken_up_and_nothing_is_lost(
    installed: Installation, settings: Settings, running: Running, tmp_path: Path
) -> None:
    """Two edits while jobs come in and one runs: every job succeeds once, the later ones with the later code."""
    key = await installed.create_key()
    write(tmp_path, "v1")
    async with running(Intake(settings), Recorder(settings)), reloading(installed, tmp_path) as worker:
        installed.publish("say", {"id": "first"}, key)
        assert (await installed.finished("first"))["result"] == "v1 one"

        installed.publish("say", {"id": "under-way", "payload": {"seconds": 3}}, key)
        await eventually(lambda: (installed.job("under-way") or {}).get("state") == "running", "it runs")
        write(tmp_path, "v2")
        installed.publish_many([("say", {"id": f"during-{i}"}) for i in range(50)], key)
        await started(worker, 2)
        assert (await installed.finished("under-way"))["result"] == "v1 one"
        for i in range(50):
            assert (await installed.finished(f"during-{i}"))["state"] == "succeeded"

        write(tmp_path, "v2", "two")
        await started(worker, 3)
        installed.publish("say", {"id": "last"}, key)
        assert (await installed.finished("last"))["result"] == "v2 two"
        assert installed.db.jobs.count_documents({"attempts": {"$size": 1}}) == 53
        assert installed.db.jobs.count_documents({}) == 53


async def test_a_broken_edit_is_shown_and_a_repair_taken_up(
    installed: Installation, settings: Settings, running: Running, tmp_path: Path
) -> None:
    """The error stands on stderr; jobs wait until the file can be imported again."""
    key = await installed.create_key()
    write(tmp_path, "v1")
    async with running(Intake(settings), Recorder(settings)), reloading(installed, tmp_path) as worker:
        (tmp_path / "handlers.py").write_text("def broken(:\n")
        await eventually(lambda: "it starts again after the next change" in worker.output, "it waits for a change")
        assert "cannot import handlers: SyntaxError" in worker.output
        installed.publish("say", {"id": "patient"}, key)
        write(tmp_path, "v3")
        assert (await installed.finished("patient"))["result"] == "v3 one"


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
async def test_a_signal_ends_both(installed: Installation, tmp_path: Path, number: signal.Signals) -> None:
    """Told to stop, the parent stops the worker and ends with exit code 0."""
    write(tmp_path, "v1")
    async with reloading(installed, tmp_path) as worker:
        child = child_of(worker)
        worker.process.send_signal(number)
        assert await asyncio.wait_for(worker.process.wait(), 60) == 0
        assert gone(child)()
        assert '"stopped"' in worker.output


async def test_a_killed_parent_leaves_no_worker(installed: Installation, tmp_path: Path) -> None:
    """The worker stops by itself, in good order."""
    write(tmp_path, "v1")
    async with reloading(installed, tmp_path) as worker:
        child = child_of(worker)
        os.kill(worker.process.pid, signal.SIGKILL)
        await worker.process.wait()
        try:
            await eventually(gone(child), "the worker has ended")
        finally:
            if not gone(child)():
                os.kill(child, signal.SIGKILL)
        assert '"stopped"' in worker.output


async def test_other_files_are_none_of_its_business(installed: Installation, tmp_path: Path) -> None:
    """Data, and the files of an environment of Python below the folder."""
    write(tmp_path, "v1")
    packages = tmp_path / "env" / "lib"
    packages.mkdir(parents=True)
    (tmp_path / "env" / "pyvenv.cfg").touch()
    async with reloading(installed, tmp_path) as worker:
        (tmp_path / "data.json").write_text(json.dumps({}))
        (packages / "library.py").write_text("x = 1\n")
        (tmp_path / "new.py").write_text("x = 1\n")
        await started(worker, 2)
        (line,) = [text for text in worker.output.splitlines() if text.startswith("changed: ")]
        assert line == "changed: new.py; starting again"
