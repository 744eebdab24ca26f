"""Running the examples of a page that are tests themselves."""

from __future__ import annotations

import ast
import os
import subprocess
import sys
from pathlib import Path

from tests.acceptance.readme import blocks, files


def written(page: Path) -> int:
    """How many tests a page has; all its Python blocks are files."""
    assert len(files(page)) == len(blocks("python", page)), "every block says under which name to save it"
    return sum(
        node.name.startswith("test_")
        for text in files(page).values()
        for node in ast.parse(text).body
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
    )


def suite(page: Path, folder: Path, *options: str) -> str:
    """Save a page's files in a folder and run pytest there, with settings of nobody; returns what it says."""
    for name, text in files(page).items():
        (folder / name).write_text(text)
    env = {name: value for name, value in os.environ.items() if not name.startswith(("DISPATCHER_", "PYTEST_"))}
    command = [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", *options, "."]
    done = subprocess.run(command, cwd=folder, env=env, capture_output=True, text=True, timeout=100)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout
