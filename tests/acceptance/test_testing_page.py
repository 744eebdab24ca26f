"""docs/testing.md, followed word for word: its files, saved in a folder, are a test suite that passes."""

from __future__ import annotations

import ast
import inspect
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from consumers import testing
from tests.acceptance.readme import ROOT, blocks, files

pytestmark = pytest.mark.acceptance

PAGE = ROOT / "docs" / "testing.md"


def suite(folder: Path, *options: str) -> str:
    """Save the page's files in a folder and run pytest there, in an environment of its own; returns what it says."""
    for name, text in files(PAGE).items():
        (folder / name).write_text(text)
    env = {name: value for name, value in os.environ.items() if not name.startswith(("DISPATCHER_", "PYTEST_"))}
    command = [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", *options, "."]
    done = subprocess.run(command, cwd=folder, env=env, capture_output=True, text=True, timeout=100)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_the_examples_pass(tmp_path: Path) -> None:
    """Every test of the page is found and passes."""
    written = sum(
        node.name.startswith("test_")
        for text in files(PAGE).values()
        for node in ast.parse(text).body
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
    )
    assert written >= 8
    assert f"{written} passed" in suite(tmp_path)
    assert len(files(PAGE)) == len(blocks("python", PAGE)), "every block is a file"


def test_no_plugin_is_needed(tmp_path: Path) -> None:
    """All but the async example pass with pytest alone, and without a warning."""
    said = suite(
        tmp_path, "-W", "error", "-p", "no:asyncio", "-p", "no:xdist", "-p", "no:timeout", "--ignore", "test_async.py"
    )
    assert "passed" in said


def test_the_tables_name_what_there_is() -> None:
    """Every argument and every public member has its row, and no row names another."""
    named = set(re.findall(r"`(\w+)", "\n".join(re.findall(r"^\| (.*?) \|", PAGE.read_text(), re.MULTILINE))))
    public = {
        name
        for kind in (testing.Simulation, testing.SimulatedJob)
        for name in dir(kind)
        if not name.startswith("_") and name not in ("close", "record")
    }
    assert named == public | set(inspect.signature(testing.run).parameters) | {"Simulation"} | {"logs"} - {"id"} | {
        "id"
    }
    for name in inspect.signature(testing.Simulation).parameters:
        assert name == "registry" or f"{name}=" in PAGE.read_text()
    for name in testing.Attempt.__dataclass_fields__:
        assert f"`{name}`" in PAGE.read_text()
