"""The image's files: what can be said of them without an engine. `make containers` builds and runs it."""

from __future__ import annotations

import http.server
import importlib.util
import re
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from fnmatch import fnmatch
from pathlib import Path
from types import ModuleType

import pytest

from config import load_settings
from dispatcher.cli.main import COMMANDS

ROOT = Path(__file__).resolve().parents[2]
TEXT = re.sub(r"(?m)^\s*#.*\n", "", (ROOT / "Dockerfile").read_text("utf-8"))
#: Instructions of the Dockerfile, continued lines joined, comments away.
INSTRUCTIONS = [line.strip() for line in TEXT.replace("\\\n", " ").splitlines() if line.strip()]
LAST_FROM = max(i for i, line in enumerate(INSTRUCTIONS) if line.startswith("FROM"))
FIRST, SHIPPED = INSTRUCTIONS[:LAST_FROM], INSTRUCTIONS[LAST_FROM:]


def shipped(word: str) -> list[str]:
    """What the instructions of this name in the last stage say."""
    return [line.removeprefix(word).strip() for line in SHIPPED if line.startswith(word + " ")]


def environment() -> dict[str, str]:
    """The variables of the image."""
    return dict(pair.split("=", 1) for line in shipped("ENV") for pair in line.split())


def copied() -> list[str]:
    """What is copied from the project's folder."""
    lines = [line.split()[1:-1] for line in INSTRUCTIONS if line.startswith("COPY") and "--from=" not in line]
    return [source for line in lines for source in line]


def let_through(path: str) -> bool:
    """Whether .dockerignore lets a path into the build: the last rule decides that fits it or a folder above it."""
    passes = True
    for rule in (ROOT / ".dockerignore").read_text("utf-8").splitlines():
        if rule and not rule.startswith("#"):
            pattern = rule.removeprefix("!").removeprefix("**/")
            parts = path.split("/")
            beginnings = ["/".join(parts[: n + 1]) for n in range(len(parts))]
            names = parts if "**/" in rule else beginnings
            if any(fnmatch(name, pattern) for name in names):
                passes = rule.startswith("!")
    return passes


def test_hadolint_finds_nothing() -> None:
    """The linter of Dockerfiles, with its defaults; those of the servers that stand in for others too."""
    hadolint = Path(sys.executable).with_name("hadolint")
    files = [ROOT / "Dockerfile", *ROOT.glob("dev/image/standins/*/Dockerfile")]
    assert len(files) == 4
    done = subprocess.run([hadolint, *files], capture_output=True, text=True)
    assert (done.returncode, done.stdout) == (0, "")


def test_the_base_can_be_chosen() -> None:
    """Both stages are on the same base, whose default is a pinned Python."""
    assert re.fullmatch(r"ARG BASE_IMAGE=python:3\.\d+-slim-\w+", INSTRUCTIONS[0])
    bases = [line.split()[1] for line in INSTRUCTIONS if line.startswith("FROM")]
    assert bases == ["${BASE_IMAGE}", "${BASE_IMAGE}"]


def test_what_is_shipped_is_only_copied() -> None:
    """No command runs in the last stage, so neither compiler nor cache can be left there; nor does root."""
    assert shipped("RUN") == []
    assert {line.split()[0] for line in shipped("COPY")} == {"--from=packages"}
    assert re.fullmatch(r"[1-9]\d*:[1-9]\d*", shipped("USER")[-1])


def test_packages_are_checked_by_hash_and_never_compiled() -> None:
    """Every pip install takes wheels with known hashes; our own wheel needs no index."""
    installs = [part for line in FIRST for part in line.split("&&") if "pip" in part and " install " in part]
    assert len(installs) == 3
    for command in installs:
        assert "--no-deps --no-index" in command or "--require-hashes --only-binary :all:" in command
    for name in ("build", "runtime"):
        pins = (ROOT / "requirements" / f"{name}.txt").read_text("utf-8")
        assert pins.count("==") <= pins.count("--hash=sha256:")
    dev = (ROOT / "requirements" / "dev.txt").read_text("utf-8")
    for pin in re.findall(r"(?m)^\S+==\S+", (ROOT / "requirements" / "build.txt").read_text("utf-8")):
        assert pin in dev, "make lock: build.txt differs from dev.txt"


def test_the_build_gets_what_it_copies_and_no_more() -> None:
    """.dockerignore lets through each file that is copied, and no secret, history or data."""
    assert "." not in copied()
    for source in copied():
        assert (ROOT / source).exists()
        assert let_through(source)
    assert let_through("dispatcher/core/ladder.py")
    for kept_out in (".env", ".git/config", ".servers/env", "tests/conftest.py", "config/__pycache__/base.pyc"):
        assert not let_through(kept_out)


def test_the_wheel_has_what_it_needs() -> None:
    """Packages, readme and licence that pyproject.toml names are copied."""
    for name in ("dispatcher", "consumers", "schemas", "config", "README.md", "LICENSE", "pyproject.toml"):
        assert name in copied()


def test_probes_are_where_the_health_check_looks() -> None:
    """The image's settings are settings, its port is the exposed one, and the check's program is in the image."""
    env = {name: value for name, value in environment().items() if name.startswith("DISPATCHER_")}
    assert load_settings(env).http.host == "0.0.0.0"
    assert str(load_settings(env).http.port) == shipped("EXPOSE")[0]
    program = re.search(r'"(/opt/dispatcher/bin/healthcheck\.py)"', shipped("HEALTHCHECK")[0])
    assert program is not None
    assert any(line.endswith("deploy/image/healthcheck.py /opt/dispatcher/bin/") for line in FIRST)


def test_signals_reach_the_service() -> None:
    """The first process is an init that hands signals on; no shell stands between."""
    assert shipped("ENTRYPOINT") == ['["/usr/local/bin/tini", "-s", "--", "dispatcher"]']
    assert any(line.endswith("/usr/bin/tini-static /usr/local/bin/tini") for line in SHIPPED)


@pytest.fixture(scope="module")
def check() -> ModuleType:
    """The health check's program."""
    spec = importlib.util.spec_from_file_location("healthcheck", ROOT / "deploy" / "image" / "healthcheck.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_services_are_told_from_other_commands(check: ModuleType) -> None:
    """Whatever stands before `dispatcher`; what does not name it is asked."""
    assert check.is_service("/usr/local/bin/tini -s -- dispatcher run intake ")
    assert check.is_service("/sbin/docker-init -- /usr/local/bin/tini -s -- dispatcher worker billing:jobs ")
    assert check.is_service("sh -c dispatcher worker billing:jobs ")
    assert check.is_service("/handlers/start.sh ")
    assert not check.is_service("/usr/local/bin/tini -s -- dispatcher topology apply ")
    assert not check.is_service("python3 /opt/dispatcher/bin/dispatcher watch some-id ")


def test_the_check_knows_every_service(check: ModuleType) -> None:
    """All commands of the module that runs services, and no other, serve /healthz."""
    assert set(check.SERVICES) == {name for name, module in COMMANDS.items() if module == "run"}


@contextmanager
def answering(status: int) -> Iterator[int]:
    """An HTTP server that answers so to /healthz; gives its port."""

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(status if self.path == "/healthz" else 404)
            self.end_headers()

        def log_message(self, *_: object) -> None:
            """Nothing."""

    with http.server.HTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            yield server.server_port
        finally:
            server.shutdown()
            thread.join()


def test_the_check_says_what_is_wrong(check: ModuleType) -> None:
    """Nothing where /healthz answers 200; else the port and the reason."""
    with answering(200) as port:
        assert check.problem(port) == ""
    assert f"port {port} does not answer" in check.problem(port)
    with answering(500) as port:
        assert check.problem(port) == f"/healthz on port {port} answers 500"
