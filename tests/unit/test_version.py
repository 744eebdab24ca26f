"""One number, in one place."""

from __future__ import annotations

import subprocess
import sys
import tomllib
from pathlib import Path

from click.testing import CliRunner

from dispatcher import __version__
from dispatcher.cli.main import main

ROOT = Path(__file__).parents[2]


def test_the_package_has_the_number_of_the_code() -> None:
    """The build takes it from there; no other file says it."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    assert "version" not in project
    build = [sys.executable, "-m", "hatchling", "metadata", "version"]
    assert subprocess.run(build, cwd=ROOT, capture_output=True, text=True, check=True).stdout.strip() == __version__


def test_the_command_line_says_it() -> None:
    """As people ask for it."""
    assert CliRunner().invoke(main, ["--version"]).output == f"dispatcher, version {__version__}\n"
