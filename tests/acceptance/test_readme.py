"""README.md, followed word for word against a running installation.

Only the exchange's name differs: an installation of the tests has a prefix.
"""

from __future__ import annotations

import asyncio
import os
import shutil
import subprocess
import sys
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import pytest_asyncio

from consumers.loading import load_registry
from consumers.worker import Worker
from dev.provision import apt_programs
from dispatcher.services.intake import Intake
from dispatcher.services.recorder import Recorder
from tests.acceptance.readme import README, ROOT, block
from tests.conftest import run_services
from tests.support import Installation, eventually

pytestmark = pytest.mark.acceptance

NODE_PROJECT = Path(__file__).parent / "node"
TARGET = "examples.handlers:jobs"


@pytest_asyncio.fixture
async def shop(installed: Installation) -> AsyncIterator[tuple[Installation, dict[str, str]]]:
    """A running installation, and the environment that ``source .servers/env`` and the key give a shell."""
    key = await installed.create_key()
    env = os.environ | installed.environment()
    # amqp-tools read a bare "/" as a virtual host without a name
    env |= {"AMQP_URL": installed.amqp_url.removesuffix("/"), "DISPATCHER_API_KEY": key}
    env["PATH"] = f"{Path(sys.executable).parent}:{env['PATH']}"
    settings = installed.settings
    worker = Worker(settings, load_registry(TARGET), TARGET)
    async with run_services(Intake(settings), Recorder(settings), worker):
        yield installed, env


Shop = tuple[Installation, dict[str, str]]


def prefixed(text: str, installation: Installation) -> str:
    """The block, with the installation's exchange instead of ``jobs``."""
    name = installation.names.jobs
    changed = text.replace('"jobs"', f'"{name}"').replace("'jobs'", f"'{name}'").replace("=jobs ", f"={name} ")
    assert changed != text, "the block names the exchange jobs"
    return changed


async def run(command: list[str], env: dict[str, str], folder: Path, text: str | None = None) -> str:
    """Run a command to its end; returns what it printed."""

    def blocking() -> str:
        done = subprocess.run(command, env=env, cwd=folder, input=text, capture_output=True, text=True, timeout=100)
        assert done.returncode == 0, f"{command}: {done.stdout}{done.stderr}"
        return done.stdout + done.stderr

    return await asyncio.to_thread(blocking)


async def test_the_commands_of_use_it(shop: Shop, tmp_path: Path) -> None:
    """Publish two jobs from the command line and look at them."""
    installation, env = shop
    script = block("sh", "dispatcher keys create --app shop")
    commands = [line for line in script.splitlines() if not line.startswith("source ")]
    shown = await run(["bash", "-e"], env, ROOT, "\n".join(commands[:-3]))
    document = await installation.finished("welcome-1")
    assert document["state"] == "succeeded"
    shown = await run(["bash", "-e"], env, ROOT, "\n".join(commands[-3:]))
    assert "welcome-1" in shown
    assert "email.send" in shown


async def test_amqp_publish_gets_a_job_through(shop: Shop, tmp_path: Path) -> None:
    """Debian's amqp-tools, as the README shows them."""
    installation, env = shop
    apt_programs("amqp-tools", "amqp-publish")
    await run(["bash", "-e"], env, tmp_path, prefixed(block("sh", "from-shell"), installation))
    assert (await installation.finished("from-shell"))["state"] == "succeeded"


async def test_a_refusal_is_explained(shop: Shop, tmp_path: Path) -> None:
    """The mistyped field is refused, and `rejected list` says which was meant."""
    installation, env = shop
    apt_programs("amqp-tools", "amqp-publish")
    publish, _, show = block("sh", "payloud").rpartition("dispatcher rejected list")
    await run(["bash", "-e"], env, tmp_path, prefixed(publish, installation))
    await eventually(lambda: installation.depth(installation.names.rejected), "it is refused")
    shown = await run(["bash", "-e"], env, tmp_path, f"dispatcher rejected list{show}")
    sentence = 'unknown_field: the body has an unknown field; its nearest known one is "payload"'
    assert sentence in " ".join(shown.split())
    assert f"`{sentence}`" in README.read_text()


async def test_plain_pika(shop: Shop, tmp_path: Path) -> None:
    """The block for pika."""
    installation, env = shop
    await run([sys.executable, "-"], env, tmp_path, prefixed(block("python", "from-pika"), installation))
    assert (await installation.finished("from-pika"))["state"] == "succeeded"


async def test_node_amqplib(shop: Shop, tmp_path: Path) -> None:
    """The block for amqplib, with the version that package-lock.json pins."""
    installation, env = shop
    if shutil.which("node") is None or shutil.which("npm") is None:
        pytest.fail("node and npm are needed for the Node example; on Debian: apt-get install nodejs npm")
    for name in ("package.json", "package-lock.json"):
        shutil.copy(NODE_PROJECT / name, tmp_path)
    await run(["npm", "ci", "--no-audit", "--no-fund", "--ignore-scripts"], env, tmp_path)
    (tmp_path / "publish.js").write_text(prefixed(block("javascript", "amqplib"), installation))
    await run(["node", "publish.js"], env, tmp_path)
    assert (await installation.finished("from-node"))["state"] == "succeeded"


async def test_our_client(shop: Shop, tmp_path: Path) -> None:
    """The block for our client."""
    installation, env = shop
    text = block("python", "submit_sync").replace(
        'os.environ["DISPATCHER_API_KEY"])',
        f'os.environ["DISPATCHER_API_KEY"], prefix="{installation.settings.amqp.prefix}")',
    )
    shown = await run([sys.executable, "-"], env, ROOT, text)
    accepted, job_id = shown.split()
    assert accepted == "True"
    assert (await installation.finished(job_id))["priority"] == "high"


async def test_the_handler_example(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The block for handlers loads as the README says: saved as billing.py, named billing:jobs."""
    (tmp_path / "billing.py").write_text(block("python", "invoice.send"))
    monkeypatch.syspath_prepend(str(tmp_path))
    handler = load_registry("billing:jobs").get("invoice.send")
    assert handler is not None
    assert handler.timeout == 30
