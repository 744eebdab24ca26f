"""docs/deploy.md: systemd understands its units, and what they start runs with the settings that they name."""

from __future__ import annotations

import asyncio
import json
import os
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from dev.provision import apt_programs
from tests.acceptance.readme import ROOT, blocks
from tests.conftest import make_settings
from tests.support import Installation

pytestmark = [pytest.mark.acceptance, pytest.mark.long, pytest.mark.timeout(300)]

PAGE = ROOT / "docs" / "deploy.md"
PROGRAM = "/opt/dispatcher/bin/dispatcher"
HANDLERS = """
from consumers import Registry

jobs = Registry()


@jobs.handler("report.build")
async def build(payload: dict) -> str:
    return "built"
"""


def named(language: str) -> dict[str, str]:
    """The page's blocks that begin with the path of their file, by the file's name."""
    found = {}
    for text in blocks(language, PAGE):
        match = re.match(r"# (/etc/\S+)\n", text)
        if match:
            found[Path(match[1]).name] = text
    return found


def variables(text: str) -> dict[str, str]:
    """What systemd reads in an environment file: one variable a line, as it stands."""
    return dict(line.split("=", 1) for line in text.splitlines() if line and not line.startswith("#"))


def started(unit: str) -> list[str]:
    """The words of a unit's ExecStart."""
    (line,) = re.findall(r"^ExecStart=(.*)$", unit, re.MULTILINE)
    return str(line).split()


def test_systemd_understands_the_units(tmp_path: Path) -> None:
    """Nothing is said of them; of a mistyped one something is."""
    apt_programs("systemd", "systemd-analyze")
    units = named("ini")
    assert set(units) == {"dispatcher@.service", "dispatcher-worker@.service"}
    for name, text in units.items():
        (tmp_path / name).write_text(text.replace(PROGRAM, sys.executable))

    def said() -> str:
        command = ["systemd-analyze", "verify", "--man=no", *(str(tmp_path / name) for name in units)]
        done = subprocess.run(command, capture_output=True, text=True)
        lines = [line for line in (done.stdout + done.stderr).splitlines() if str(tmp_path) in line]
        return "\n".join(lines)

    assert said() == ""
    broken = tmp_path / "dispatcher@.service"
    broken.write_text(broken.read_text().replace("RestartSec", "RestartSecs"))
    assert "RestartSecs" in said()


@contextmanager
def running(command: list[str], env: dict[str, str], folder: Path) -> Iterator[subprocess.Popen[bytes]]:
    """A process, asked to stop as systemd does; it must end in good order."""
    process = subprocess.Popen(command, env=env, cwd=folder)
    try:
        yield process
        process.send_signal(signal.SIGTERM)
        assert process.wait(60) == 0
    finally:
        process.kill()
        process.wait()


async def test_what_the_units_start(tmp_path: Path) -> None:
    """Three services and a worker of the lane; a job goes through, and SIGTERM ends them all with exit code 0."""
    installed = Installation(make_settings(DISPATCHER_LANES='["default", "slow"]'))
    await asyncio.to_thread(installed.apply)
    (tmp_path / "shop").mkdir()
    (tmp_path / "shop" / "worker.py").write_text(HANDLERS)
    (tmp_path / "settings.yaml").write_text(json.dumps({"lanes": ["default", "slow"]}))
    files = {name: variables(text) for name, text in named("sh").items()}
    plain = {name: value for name, value in os.environ.items() if not name.startswith("DISPATCHER_")}
    here = installed.environment() | {"DISPATCHER_CONFIG": str(tmp_path / "settings.yaml"), "PYTHONPATH": str(ROOT)}
    del here["DISPATCHER_LANES"]
    assert {"DISPATCHER_CONFIG", "DISPATCHER_AMQP__URL", "DISPATCHER_MONGO__URL"} <= set(files["env"])
    common = plain | files["env"] | here
    own = files["worker-slow"] | {"DISPATCHER_HTTP__PORT": "null"}
    program = [sys.executable, "-m", "dispatcher.cli.main"]
    units = named("ini")

    def command(unit: str, instance: str) -> list[str]:
        first, *words = started(units[unit])
        assert first == PROGRAM
        return [*program, *(word.replace("%i", instance).replace("${HANDLERS}", own["HANDLERS"]) for word in words)]

    try:
        with (
            running(command("dispatcher@.service", "intake"), common, tmp_path),
            running(command("dispatcher@.service", "recorder"), common, tmp_path),
            running(command("dispatcher@.service", "scheduler"), common, tmp_path),
            running(command("dispatcher-worker@.service", "slow"), common | own, tmp_path),
        ):
            job = {"id": "by-units", "lane": "slow"}
            await asyncio.to_thread(installed.publish, "report.build", job, await installed.create_key())
            assert (await installed.finished("by-units"))["result"] == "built"
    finally:
        await asyncio.to_thread(installed.remove)
