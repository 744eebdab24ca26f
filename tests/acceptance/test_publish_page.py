"""docs/publish.md: each program publishes for real, and does what the page says when something is wrong."""

from __future__ import annotations

import asyncio
import os
import re
import shutil
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import quote, unquote, urlsplit, urlunsplit

import httpx
import pytest
import pytest_asyncio

from consumers.loading import load_registry
from consumers.worker import Worker
from dev import apt
from dev.provision import apt_programs
from dispatcher.services.intake import Intake
from dispatcher.services.recorder import Recorder
from tests.acceptance.readme import ROOT, blocks
from tests.conftest import run_services
from tests.proxy import Proxy
from tests.support import Installation

pytestmark = [pytest.mark.acceptance, pytest.mark.timeout(600)]

PAGE = ROOT / "docs" / "publish.md"
NODE_PROJECT = Path(__file__).parent / "node"
TARGET = "examples.handlers:jobs"
JARS = ("amqp-client", "gson", "slf4j-api", "slf4j-nop")


@dataclass(frozen=True)
class Program:
    """One of the page: its file, how it is run in its folder, and Debian's packages that it needs."""

    language: str
    file: str
    command: tuple[str, ...]
    packages: dict[str, str]  # a file of each, by which it is known to be installed
    env: dict[str, str]


def made(language: str, file: str, *command: str, env: dict[str, str] | None = None, **packages: str) -> Program:
    """The program, with packages as keywords: underscores stand for dashes."""
    return Program(language, file, command, {k.replace("_", "-"): v for k, v in packages.items()}, env or {})


QUICK = (
    made("python", "publish_client.py", sys.executable, "publish_client.py", env={"PYTHONPATH": str(ROOT)}),
    made("python", "publish_pika.py", sys.executable, "publish_pika.py"),
    made("javascript", "publish.js", "node", "publish.js"),
)
OTHERS = (
    made(
        "go",
        "publish.go",
        *("go", "run", "publish.go"),
        env={"GO111MODULE": "off", "GOPATH": "/usr/share/gocode", "GOFLAGS": ""},
        golang_go="/usr/bin/go",
        golang_github_rabbitmq_amqp091_go_dev="/usr/share/gocode/src/github.com/rabbitmq/amqp091-go",
    ),
    made(
        "java",
        "Publish.java",
        *("java", "-cp", ":".join(f"/usr/share/java/{jar}.jar" for jar in JARS), "Publish.java"),
        default_jdk_headless="/usr/bin/javac",
        librabbitmq_client_java="/usr/share/java/amqp-client.jar",
        libgoogle_gson_java="/usr/share/java/gson.jar",
        libslf4j_java="/usr/share/java/slf4j-nop.jar",
    ),
    made("ruby", "publish.rb", "ruby", "publish.rb", ruby_bunny="/usr/bin/ruby"),
    made("php", "publish.php", "php", "publish.php", php_cli="/usr/bin/php", php_amqplib="/usr/share/php/PhpAmqpLib"),
)
EVERY = [*QUICK, *(pytest.param(program, marks=pytest.mark.long) for program in OTHERS)]


def name(program: object) -> str:
    """How a program is called in the names of tests."""
    return program.file if isinstance(program, Program) else ""


@pytest_asyncio.fixture
async def shop(installed: Installation) -> AsyncIterator[tuple[Installation, dict[str, str]]]:
    """A running installation, and the environment of an application."""
    settings = installed.settings
    worker = Worker(settings, load_registry(TARGET), TARGET)
    with least_rights(installed) as url:
        env = os.environ | {"AMQP_URL": url, "DISPATCHER_API_KEY": await installed.create_key()}
        async with run_services(Intake(settings), Recorder(settings), worker):
            yield installed, env


@contextmanager
def least_rights(installed: Installation) -> Iterator[str]:
    """The broker's URL for a user that may write to the exchange ``jobs`` alone; ours where no API makes users."""
    ours, api = urlsplit(installed.amqp_url.removesuffix("/")), os.environ.get("DEV_MANAGEMENT_URL")
    if not api:
        yield urlunsplit(ours)
        return
    name, vhost = f"{installed.settings.amqp.prefix}writer", quote(unquote(ours.path[1:]) or "/", safe="")
    write = f"^{re.escape(installed.names.jobs)}$"
    with httpx.Client(base_url=f"{api}/api", auth=(ours.username or "guest", ours.password or "guest")) as client:
        client.put(f"/users/{name}", json={"password": "only-here", "tags": ""}).raise_for_status()
        rights = {"configure": "^$", "write": write, "read": "^$"}
        client.put(f"/permissions/{vhost}/{name}", json=rights).raise_for_status()
        try:
            yield urlunsplit(ours._replace(netloc=f"{name}:only-here@{ours.hostname}:{ours.port}"))
        finally:
            client.delete(f"/users/{name}").raise_for_status()


def source(program: Program) -> str:
    """The program's block; its first line names its file."""
    found = [text for text in blocks(program.language, PAGE) if program.file in text.splitlines()[0]]
    assert len(found) == 1, program.file
    return found[0]


def changed(text: str, old: str, new: str) -> str:
    """The text with something replaced that is in it."""
    assert old in text
    return text.replace(old, new)


def to(text: str, program: Program, exchange: str) -> str:
    """The program, publishing to another exchange than ``jobs``."""
    if program.file == "publish_client.py":
        old = 'os.environ["DISPATCHER_API_KEY"])'
        return changed(text, old, f'{old[:-1]}, prefix="{exchange.removesuffix("jobs")}")')
    quoted = re.compile(r"(['\"])jobs\1")
    assert len(quoted.findall(text)) == 1
    return quoted.sub(rf"\g<1>{exchange}\g<1>", text)


def prepare(program: Program, folder: Path) -> None:
    """Have what the program needs; a missing one fails the test."""
    for package, file in program.packages.items():
        if not Path(file).exists() and apt.may_install():
            apt.install(package)
        assert Path(file).exists(), f"{file} is missing: on Debian, apt-get install {package}"
    if program.language == "javascript":
        assert shutil.which("npm"), "npm is needed: on Debian, apt-get install nodejs npm"
        for file in ("package.json", "package-lock.json"):
            shutil.copy(NODE_PROJECT / file, folder)
        install = ["npm", "ci", "--no-audit", "--no-fund", "--ignore-scripts"]
        subprocess.run(install, cwd=folder, check=True, capture_output=True)


async def run(program: Program, text: str, env: dict[str, str], folder: Path) -> subprocess.CompletedProcess[str]:
    """Save the program and run it to its end."""
    (folder / program.file).write_text(text)
    return await asyncio.to_thread(
        subprocess.run,
        list(program.command),
        cwd=folder,
        env=env | program.env,
        capture_output=True,
        text=True,
        timeout=200,
    )


@pytest.mark.parametrize("program", EVERY, ids=name)
async def test_a_program_of_the_page(
    program: Program, shop: tuple[Installation, dict[str, str]], tmp_path: Path
) -> None:
    """It is accepted although the broker is away at first, is known the second time, and is told of a refusal."""
    installed, env = shop
    await asyncio.to_thread(prepare, program, tmp_path)
    text = to(source(program), program, installed.names.jobs)
    (job_id,) = re.findall(r"[\"'](from-[\w-]+)[\"']", text)
    async with Proxy.before(installed.amqp_url) as proxy:
        proxy.refusing = True
        first = asyncio.create_task(run(program, text, env | {"AMQP_URL": proxy.url(env["AMQP_URL"])}, tmp_path))
        while not proxy.taken and not first.done():
            await asyncio.sleep(0.02)
        proxy.refusing = False
        done = await first
        taken = proxy.taken
    assert (done.returncode, done.stdout) == (0, f"accepted {job_id}\n"), done.stderr
    assert taken > 1
    assert (await installed.finished(job_id))["state"] == "succeeded"
    done = await run(program, text, env, tmp_path)
    assert (done.returncode, done.stdout) == (0, f"accepted {job_id} (sent before)\n"), done.stderr
    done = await run(program, wrong(program, text), env, tmp_path)
    assert done.returncode == 1, done.stdout + done.stderr
    assert done.stdout.startswith("rejected unknown_field: "), done.stdout + done.stderr


def wrong(program: Program, text: str) -> str:
    """The program with a field that does not exist."""
    if program.file == "publish_client.py":
        return changed(text, 'id="from-client"', 'id="from-client", payloud=1')
    return re.sub(r"payload(?=['\"]?(:| =>|,))", "payloud", text)


@pytest.mark.parametrize("program", [p for p in EVERY if p is not QUICK[0]], ids=name)
async def test_what_leads_nowhere_is_told(program: Program, installed: Installation, tmp_path: Path) -> None:
    """An exchange without a queue: the return is seen, and nothing is repeated."""
    await asyncio.to_thread(prepare, program, tmp_path)
    nowhere = f"{installed.settings.amqp.prefix}nowhere"
    with installed.channel() as channel:
        channel.exchange_declare(nowhere, "topic")
        try:
            env = os.environ | {"AMQP_URL": installed.amqp_url.removesuffix("/"), "DISPATCHER_API_KEY": "none"}
            done = await run(program, to(source(program), program, nowhere), env, tmp_path)
        finally:
            channel.exchange_delete(nowhere)
    assert (done.returncode, done.stdout) == (1, "no queue takes it: is the topology applied?\n"), done.stderr


@pytest.mark.long
@pytest.mark.parametrize("program", [*QUICK[1:], *OTHERS], ids=name)
async def test_what_is_nacked_is_sent_again(program: Program, installed: Installation, tmp_path: Path) -> None:
    """A queue that refuses publishes: four tries, and exit code 1."""
    await asyncio.to_thread(prepare, program, tmp_path)
    full = f"{installed.settings.amqp.prefix}full"
    with installed.channel() as channel:
        channel.exchange_declare(full, "topic")
        channel.queue_declare(full, arguments={"x-max-length": 0, "x-overflow": "reject-publish"})
        channel.queue_bind(full, full, "#")
        try:
            env = os.environ | {"AMQP_URL": installed.amqp_url.removesuffix("/"), "DISPATCHER_API_KEY": "none"}
            done = await run(program, to(source(program), program, full), env, tmp_path)
        finally:
            channel.queue_delete(full)
            channel.exchange_delete(full)
    assert (done.returncode, done.stdout) == (1, ""), done.stderr
    assert done.stderr.count("not confirmed: ") == 4


async def test_the_shell(shop: tuple[Installation, dict[str, str]], tmp_path: Path) -> None:
    """Both blocks, the command line's and that of amqp-tools."""
    installed, env = shop
    apt_programs("amqp-tools", "amqp-publish")
    ours, tools = blocks("sh", PAGE)
    env |= installed.environment() | {"PATH": f"{Path(sys.executable).parent}:{env['PATH']}"}
    script = f"{ours}\n{changed(tools, '--exchange=jobs', f'--exchange={installed.names.jobs}')}"
    command = ["bash", "-e", "-c", script]
    done = await asyncio.to_thread(
        subprocess.run, command, cwd=tmp_path, env=env, capture_output=True, text=True, timeout=100
    )
    assert done.returncode == 0, done.stdout + done.stderr
    for job_id in ("from-cli", "from-amqp-tools"):
        assert (await installed.finished(job_id))["state"] == "succeeded"


def test_every_program_is_tested() -> None:
    """Each block of a programming language on the page is one of the programs."""
    languages = ("python", "javascript", "go", "java", "ruby", "php")
    assert sum(len(blocks(language, PAGE)) for language in languages) == len(QUICK) + len(OTHERS)
