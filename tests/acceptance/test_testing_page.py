"""docs/testing.md, followed word for word: its files, saved in a folder, are a test suite that passes."""

from __future__ import annotations

import inspect
import re
from pathlib import Path

import pytest

from consumers import testing
from tests.acceptance.pages import suite, written
from tests.acceptance.readme import ROOT

pytestmark = pytest.mark.acceptance

PAGE = ROOT / "docs" / "testing.md"


def test_the_examples_pass(tmp_path: Path) -> None:
    """Every test of the page is found and passes."""
    assert written(PAGE) >= 8
    assert f"{written(PAGE)} passed" in suite(PAGE, tmp_path)


def test_no_plugin_is_needed(tmp_path: Path) -> None:
    """All but the async example pass with pytest alone, and without a warning."""
    plugins = ("-p", "no:asyncio", "-p", "no:xdist", "-p", "no:timeout")
    said = suite(PAGE, tmp_path, "-W", "error", *plugins, "--ignore", "test_async.py")
    assert f"{written(PAGE) - 1} passed" in said


def test_the_tables_name_what_there_is() -> None:
    """Every argument and every public member has its row, and no row names another."""
    named = set(re.findall(r"`(\w+)", "\n".join(re.findall(r"^\| (.*?) \|", PAGE.read_text(), re.MULTILINE))))
    public = {
        name
        for kind in (testing.Simulation, testing.SimulatedJob)
        for name in dir(kind)
        if not name.startswith("_") and name not in ("close", "record")
    }
    assert named == public | set(inspect.signature(testing.run).parameters) | {"Simulation", "logs"}
    for name in inspect.signature(testing.Simulation).parameters:
        assert name == "registry" or f"{name}=" in PAGE.read_text()
    for name in testing.Attempt.__dataclass_fields__:
        assert f"`{name}`" in PAGE.read_text()
