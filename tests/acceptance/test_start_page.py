"""docs/start.md, followed step by step: the handler's file, the services, and a shell beside them."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.acceptance.readme import ROOT, blocks, files
from tests.conftest import make_settings
from tests.processes import ServiceProcess
from tests.support import Installation

pytestmark = [pytest.mark.acceptance, pytest.mark.long, pytest.mark.timeout(300)]

PAGE = ROOT / "docs" / "start.md"
UP = 'make up ARGS="--worker hello:jobs"\n'


def watched() -> list[str]:
    """The lines of the page that `dispatcher watch` prints; a worker's name is left out there."""
    (shown,) = blocks("text", PAGE)
    return [line.removesuffix("…") for line in shown.splitlines()]


async def test_every_step_of_the_page(tmp_path: Path) -> None:
    """`make up` is `dispatcher up` on the servers of the tests; everything else is as the page says."""
    installed = Installation(make_settings())
    for name, text in files(PAGE).items():
        (tmp_path / name).write_text(text)
    up, publish, again, refused = blocks("sh", PAGE)
    assert up == UP
    source, *rest = publish.splitlines()
    assert source == "source .servers/env"
    env = os.environ | installed.environment() | {"COLUMNS": "200"}
    env["PATH"] = f"{Path(sys.executable).parent}:{env['PATH']}"

    def run(script: str) -> subprocess.CompletedProcess[str]:
        command = ["bash", "-e", "-c", script]
        return subprocess.run(command, env=env, cwd=tmp_path, capture_output=True, text=True, timeout=100)

    try:
        async with ServiceProcess(installed, "up", "--worker", "hello:jobs", folder=tmp_path):
            done = run("\n".join([*rest, 'echo "key $DISPATCHER_API_KEY"']))
            assert done.returncode == 0, done.stdout + done.stderr
            places = [done.stdout.find(line) for line in watched()]
            assert places == sorted(places), done.stdout
            assert -1 not in places, done.stdout
            assert '{"said": "hello Ann"}' in done.stdout
            env["DISPATCHER_API_KEY"] = re.findall(r"key (jd_\w+)", done.stdout)[0]
            done = run(again)
            assert done.returncode == 0, done.stderr
            assert installed.db.jobs.count_documents({"app": "shop", "type": "hello.say"}) == 1
            done = run(refused)
            assert done.returncode == 1
            assert "refused: unknown_lane: " in done.stdout + done.stderr
    finally:
        installed.remove()
