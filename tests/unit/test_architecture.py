"""The house rules that a reader relies on: imports flow one way, files and functions stay small."""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
FOLDERS = ("schemas", "config", "dispatcher", "consumers", "dev", "bench", "examples", "tests")
MAX_LINES = 400
MAX_FUNCTION_LINES = 50


def sources() -> Iterator[Path]:
    """Every Python file of ours."""
    for folder in FOLDERS:
        yield from sorted((ROOT / folder).rglob("*.py"))


def test_imports_flow_one_way_and_each_technology_has_its_place() -> None:
    """The contracts of pyproject.toml, as `lint-imports` reads them."""
    command = [sys.executable, "-c", "from importlinter.cli import lint_imports_command as main; main()", "--no-cache"]
    result = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=60)
    assert result.returncode == 0, result.stdout + result.stderr
    assert " 0 broken" in result.stdout


def test_schemas_imports_nothing_of_ours_and_the_core_no_technology() -> None:
    """Looked up in the files themselves, so that a contract taken out of pyproject.toml is noticed."""
    ours = {"config", "consumers", "dispatcher"}
    technologies = {
        "asyncio",
        "aio_pika",
        "aiormq",
        "motor",
        "pymongo",
        "bson",
        "starlette",
        "uvicorn",
        "time",
        "random",
        "secrets",
    }
    for path in sorted((ROOT / "schemas").rglob("*.py")):
        assert not imported(path) & (ours | technologies), path
    for path in sorted((ROOT / "dispatcher" / "core").rglob("*.py")):
        assert not imported(path) & (technologies | {"config", "consumers"}), path


def imported(path: Path) -> set[str]:
    """Top-level names of the modules that a file imports."""
    names: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            names |= {alias.name.partition(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            names.add(node.module.partition(".")[0])
    return names


def test_no_file_is_longer_than_400_lines() -> None:
    """Whoever opens a file can read it."""
    found = list(sources())
    assert len(found) > 50, "the folders were not found"
    long = {str(path.relative_to(ROOT)): n for path in found if (n := len(path.read_text().splitlines())) > MAX_LINES}
    assert long == {}


def test_no_function_is_longer_than_50_lines() -> None:
    """Tests excepted; a decision that needs more belongs in pieces."""
    long = {}
    for path in sources():
        if path.is_relative_to(ROOT / "tests"):
            continue
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                assert node.end_lineno is not None
                if (lines := node.end_lineno - node.lineno + 1) > MAX_FUNCTION_LINES:
                    long[f"{path.relative_to(ROOT)}:{node.name}"] = lines
    assert long == {}


def test_every_unit_test_says_in_a_sentence_what_it_holds() -> None:
    """A docstring that ends with a full stop."""
    for path in sorted((ROOT / "tests" / "unit").glob("test_*.py")):
        for node in ast.parse(path.read_text()).body:
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) and node.name.startswith("test_"):
                text = ast.get_docstring(node) or ""
                assert text.endswith("."), f"{path.name}: {node.name}"


def tracked() -> list[Path]:
    """Every file that is, or would be, in the repository."""
    command = ["git", "ls-files", "--cached", "--others", "--exclude-standard", "-z"]
    listing = subprocess.run(command, cwd=ROOT, capture_output=True, timeout=30)
    if listing.returncode:
        pytest.skip("not a git checkout: what is tracked cannot be told")
    return [path for name in listing.stdout.decode().split("\0") if name and (path := ROOT / name).is_file()]


def test_no_file_names_a_package_registry() -> None:
    """Which registry serves packages is the machine's own setting: a name in a file would go around it."""
    pieces = [
        ("pypi", "org"),
        ("pythonhosted", "org"),
        ("npmjs", "org"),
        ("npmjs", "com"),
        ("crates", "io"),
        ("proxy.golang", "org"),
        ("rubygems", "org"),
        ("docker", "io/"),
        ("ghcr", "io"),
        ("quay", "io"),
    ]
    hosts = [".".join(piece).encode() for piece in pieces]
    files = tracked()
    assert len(files) > 50
    named = {str(path.relative_to(ROOT)) for path in files if any(host in path.read_bytes() for host in hosts)}
    assert named == set()
