"""docs/keys.md, followed word for word against a running installation."""

from __future__ import annotations

import asyncio
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from dispatcher.services.intake import Intake
from dispatcher.services.recorder import Recorder
from tests.acceptance.readme import ROOT
from tests.conftest import run_services
from tests.support import Installation, eventually

pytestmark = [pytest.mark.acceptance, pytest.mark.long, pytest.mark.timeout(300)]


async def test_every_block_of_the_page_runs(installed: Installation) -> None:
    """In one shell, in order, in the repository; nothing found leaked there, and the key ends revoked."""
    text = (ROOT / "docs" / "keys.md").read_text(encoding="utf-8")
    blocks = re.findall(r"^```sh\n(.*?)^```$", text, re.MULTILINE | re.DOTALL)
    assert len(blocks) == 7
    env = os.environ | installed.environment()
    env["PATH"] = f"{Path(sys.executable).parent}:{env['PATH']}"

    def run() -> str:
        script = "set -euo pipefail\n" + "\n".join(blocks) + '\necho "the key was $KEYID"\n'
        done = subprocess.run(
            ["bash", "-c", script],
            env=env,
            cwd=ROOT,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=250,
        )
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    async with run_services(Intake(installed.settings), Recorder(installed.settings)):
        shown = await asyncio.to_thread(run)
        await eventually(lambda: installed.db.jobs.find_one({"app": "shop", "type": "email.send"}), "the job is there")
    (key_id,) = re.findall(r"the key was (\w+)", shown)
    stored = installed.db.api_keys.find_one({"_id": key_id})
    assert stored["revoked_at"] is not None
    assert installed.db.api_keys.count_documents({"replaces": key_id}) == 2
    assert '"action": "key.revoked"' in shown
