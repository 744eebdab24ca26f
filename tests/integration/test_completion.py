"""Tab in a real, interactive bash: words of the configuration and of MongoDB."""

from __future__ import annotations

import asyncio
import os
import shutil
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from dispatcher.edges.mongo.jobs import to_bson
from tests.support import Installation
from tests.terminal import Terminal
from tests.unit.test_explaining import make_doc

pytestmark = pytest.mark.integration

#: What empties bash's line.
EMPTY = b"\x15"


@pytest.fixture(scope="module")
def key(installed: Installation) -> str:
    """The id of a key of the application ``shop``; beside it jobs of ``shop`` and ``other``."""
    for app, job, job_type in (
        ("shop", "welcome-1", "email.send"),
        ("other", "reminder-1", "email.remind"),
        ("shop", "welcome-$(touch x)", "zip;true"),
    ):
        doc = make_doc("failed", app=app, id=job, type=job_type) | {"_id": f"{app}:{job}"}
        installed.db.jobs.insert_one(to_bson(doc))
    return asyncio.run(installed.create_key("shop")).split("_")[2]


@pytest.fixture(scope="module")
def bash(installed: Installation, key: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Terminal]:
    """A bash with the printed script, at its prompt."""
    program = shutil.which("bash")
    assert program is not None
    home = tmp_path_factory.mktemp("home")
    env = {"PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}", "HOME": str(home), "PS1": "ready> "}
    quiet = [program, "--noprofile", "--norc", "-i"]
    with Terminal(installed, env=env, columns=200, program=quiet) as terminal:
        terminal.until("ready> ")
        terminal.type(b'eval "$(dispatcher completion bash)"; bind "set enable-bracketed-paste off"; echo is"set"\n')
        terminal.until("isset")
        yield terminal


def complete(bash: Terminal, line: str, completed: str) -> None:
    """Type this, press Tab, and see that the line becomes this."""
    bash.type(EMPTY + line.encode() + b"\t")
    bash.until(completed, timeout=20)


@pytest.mark.parametrize(
    ("line", "completed"),
    [
        ("dispatcher jobs list --state time", "--state timed_out "),
        ("dispatcher jobs list --lane def", "--lane default "),
        ("dispatcher jobs list --type email.s", "--type email.send "),
        ("dispatcher jobs list --app oth", "--app other "),
        ("dispatcher jobs show wel", "show welcome-1 "),
        ("dispatcher jobs show --app other ", "--app other reminder-1 "),
        ("dispatcher watch rem", "watch reminder-1 "),
        ("dispatcher publish email.r", "publish email.remind "),
    ],
)
def test_tab_completes(bash: Terminal, line: str, completed: str) -> None:
    """The only word that fits, with the space after it; what a shell would run is offered by nothing."""
    complete(bash, line, completed)


def test_tab_completes_keys(bash: Terminal, key: str) -> None:
    """By their ids."""
    complete(bash, f"dispatcher keys revoke {key[:5]}", f"keys revoke {key} ")


def test_words_that_a_shell_would_run_are_not_offered(bash: Terminal) -> None:
    """Nothing begins with zip then, so Tab leaves the line as it is."""
    bash.type(EMPTY + b"dispatcher jobs list --type zip\t.\x01echo \x05\n")
    bash.until("dispatcher jobs list --type zip.\n", timeout=20)


def test_without_mongodb_tab_takes_a_moment(installed: Installation, bash: Terminal) -> None:
    """Nothing is completed, nothing is printed, and the prompt comes back."""
    bash.type(EMPTY + b"export DISPATCHER_MONGO__URL=mongodb://127.0.0.1:9/\n")
    before = time.monotonic()
    bash.type(b"dispatcher jobs show wel\t.\x01echo \x05\n")
    bash.until("dispatcher jobs show wel.\n")
    assert time.monotonic() - before < 15
    assert "Traceback" not in bash.text
