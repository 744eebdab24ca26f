"""Versions of the project laid out in folders, so that their services run beside one another as processes."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tarfile
from collections.abc import Mapping, Sequence
from io import BytesIO
from pathlib import Path
from typing import Any

from dev.process import ServerError
from tests.faults.fleet import ROOT, Code

#: What is installed, and what says which libraries it needs.
PACKAGES = ("schemas", "config", "dispatcher", "consumers")
REQUIREMENTS = "requirements/runtime.txt"
#: The handlers that both versions run, and what they import of the tests.
HANDLERS = tuple(
    f"tests/{name}.py"
    for name in ("__init__", "faults/__init__", "faults/executions", "faults/handlers", "faults/upgrade_handlers")
)
#: Before there is a release: the last commit without claims of ids, unique keys and groups.
EARLIER = "9fc5820"
_PROBE = """
import json, pathlib
import dispatcher.core.admission as admission
unknown = set(admission.NOT_BUILT)
if not (pathlib.Path(admission.__file__).parent / "claims.py").exists():
    unknown.add("id")
print(json.dumps(sorted(unknown)))
"""


def default_ref() -> str:
    """The latest release before the present commit; where there is none, the commit above."""
    tags = _git("tag", "--list", "v*", "--sort=-version:refname", "--merged", "HEAD").decode().split()
    here = set(_git("tag", "--list", "v*", "--points-at", "HEAD").decode().split())
    return next((tag for tag in tags if tag not in here), EARLIER)


def lay_out(what: str, name: str, folder: Path) -> Code:
    """The code of a git ref, or of a folder, in a folder of its own.

    Where it requires other libraries than this tree it gets an environment of its own.

    Raises:
        ServerError: there is no such ref, or its libraries cannot be installed.
    """
    place, shared = folder / name, folder / "handlers"
    place.mkdir()
    if Path(what).is_dir():
        _copy(Path(what), place)
    else:
        _unpack(what, place)
    for file in HANDLERS:
        (shared / file).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(ROOT / file, shared / file)
    same = (place / REQUIREMENTS).read_bytes() == (ROOT / REQUIREMENTS).read_bytes()
    python = sys.executable if same else _environment(place)
    return Code(name, place, python, (shared,))


def _copy(source: Path, place: Path) -> None:
    for package in PACKAGES:
        shutil.copytree(source / package, place / package, ignore=shutil.ignore_patterns("__pycache__"))
    (place / REQUIREMENTS).parent.mkdir()
    shutil.copy(source / REQUIREMENTS, place / REQUIREMENTS)


def _unpack(ref: str, place: Path) -> None:
    archive = _git("archive", "--format=tar", ref, "--", *PACKAGES, REQUIREMENTS)
    with tarfile.open(fileobj=BytesIO(archive)) as tar:
        tar.extractall(place, filter="data")


def _environment(place: Path) -> str:
    """Its libraries, pinned as it says, in an environment of its own; its Python."""
    own = place / ".venv"
    python = str(own / "bin" / "python")
    commands = ([sys.executable, "-m", "venv", str(own)], [python, "-m", "pip", "install", "-q", "-r", REQUIREMENTS])
    for command in commands:
        done = subprocess.run(command, cwd=place, capture_output=True, text=True)
        if done.returncode:
            raise ServerError(f"cannot install what {place.name} requires: {done.stderr[-500:]}")
    return python


def _git(*arguments: str) -> bytes:
    done = subprocess.run(["git", *arguments], cwd=ROOT, capture_output=True)
    if done.returncode:
        raise ServerError(f"git {arguments[0]}: {done.stderr.decode().strip()}; is the whole history here?")
    return done.stdout


def described(code: Code, what: str) -> str:
    """A version as people read it: its number, and which commit or folder it is."""
    number = run(code, ["-c", "import dispatcher; print(dispatcher.__version__)"]).stdout.strip()
    if Path(what).is_dir():
        return f"{number} ({'working tree' if Path(what).samefile(ROOT) else what})"
    return f"{number} ({_git('log', '-1', '--format=%h %s', what).decode().strip()[:70]})"


def run(
    code: Code, arguments: Sequence[str], environment: Mapping[str, str] | None = None
) -> subprocess.CompletedProcess[str]:
    """Run Python with a version's code to its end."""
    env = os.environ | dict(environment or {}) | code.variables
    return subprocess.run([code.python, *arguments], cwd=code.folder, env=env, capture_output=True, text=True)


def command(code: Code, environment: Mapping[str, str], *arguments: str) -> subprocess.CompletedProcess[str]:
    """Run a command of a version's command line."""
    return run(code, ["-m", "dispatcher.cli.main", *arguments], environment)


def not_known(code: Code) -> frozenset[str]:
    """Fields of messages that a version refuses as not built yet; ``id``: it takes them, and tells no two apart.

    Raises:
        ServerError: the version cannot be asked.
    """
    done = run(code, ["-c", _PROBE])
    if done.returncode:
        raise ServerError(f"{code.name} cannot be imported: {done.stderr[-500:]}")
    found: list[Any] = json.loads(done.stdout)
    return frozenset(found)
