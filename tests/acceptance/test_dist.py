"""The real wheel and sdist: built, checked, and used without this folder."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import pytest

from dev import dist
from tests.acceptance.readme import ROOT

pytestmark = pytest.mark.acceptance


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """Wheel and sdist of this folder."""
    return dist.build(ROOT, tmp_path_factory.mktemp("dist"))


@pytest.fixture(scope="module")
def installed(built: tuple[Path, Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The wheel, unpacked by pip into a folder of its own; its dependencies are those of this environment."""
    folder = tmp_path_factory.mktemp("installed")
    run([sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--no-index", "--target", folder, built[0]])
    return folder


def run(command: Sequence[str | Path], **environment: str) -> str:
    """What a command printed; it has to succeed."""
    env = {name: value for name, value in os.environ.items() if not name.startswith("DISPATCHER_")}
    done = subprocess.run(command, env=env | environment, cwd="/", capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_both_have_what_they_should_and_can_be_made_again(built: tuple[Path, Path]) -> None:
    """Every file that git has and no other, the licence, valid metadata; the same bytes from the unpacked sdist."""
    dist.check(*built, dist.sources(ROOT))
    dist.must_be_made_again(*built)


def test_the_wheel_runs_without_this_folder(installed: Path) -> None:
    """The command's module and the default settings come from the wheel."""
    program = (
        "import json, sys, config, dispatcher.cli.main as cli; from config import load_settings; "
        "print(json.dumps([cli.__file__, config.__file__, load_settings({}).lanes is not None]))"
    )
    path = str(installed)
    assert run([sys.executable, "-c", program], PYTHONPATH=path) == (
        f'["{path}/dispatcher/cli/main.py", "{path}/config/__init__.py", true]\n'
    )
    assert "dispatcher, version" in run([installed / "bin" / "dispatcher", "--version"], PYTHONPATH=path)
