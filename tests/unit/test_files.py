"""What every text file keeps to, and the hooks that look at it."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml

from dev import files
from tests.acceptance.readme import ROOT
from tests.unit.test_architecture import tracked


def test_every_file_of_the_project_is_in_order() -> None:
    """As `make hooks` would say."""
    paths = tracked()
    assert len(paths) > 400
    found = {
        name: faults
        for path in paths
        if (faults := list(files.faults(name := str(path.relative_to(ROOT)), path.read_bytes())))
    }
    assert found == {}


@pytest.mark.parametrize(
    ("name", "content", "said"),
    [
        ("a.md", b"x" * files.MAX_BYTES + b"\n", "1,048,577 bytes, more than 1,048,576"),
        ("a.png", b"\0" * (files.MAX_BYTES + 1), "1,048,577 bytes, more than 1,048,576"),
        ("a.md", b"one \ntwo\n", "line 1 ends with white space"),
        ("a.md", b"one\r\n", "line 1 ends with white space"),
        ("a.md", b"one", "does not end with one newline"),
        ("a.md", b"one\n\n", "does not end with one newline"),
        ("a.md", b"<" * 7 + b" HEAD\n", "line 1 marks a merge conflict"),
        ("a.json", b'{"a": 1,}\n', "cannot be read"),
        ("a.yaml", b"a: [1\n", "cannot be read"),
        ("a.yml", b"a: \xff\n", "cannot be read"),
        ("a.toml", b"a = \n", "line 1 ends with white space"),
        ("a.toml", b"a =\n", "cannot be read"),
    ],
)
def test_what_is_not_in_order_is_named(name: str, content: bytes, said: str) -> None:
    """The first fault, with its line."""
    assert next(files.faults(name, content)).startswith(said)


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("a.md", b""),
        ("a.md", b"one\n"),
        ("a.png", b"\0 \n\n"),
        ("tests/corpus/intake/too_deep.x", b"[ \n\n"),
        ("helm/templates/a.yaml", b"{{ if .Values.a }}\n"),
        ("mkdocs.yml", b"a: !!python/name:x.y\n"),
        ("a.yaml", b"a: 1\n---\nb: 2\n"),
    ],
)
def test_what_is_in_order(name: str, content: bytes) -> None:
    """Binary files, hostile inputs and templates are what they are; YAML may hold several documents."""
    assert list(files.faults(name, content)) == []


def test_the_command_names_the_file(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Exit code 1."""
    bad, good = tmp_path / "bad.json", tmp_path / "good.json"
    bad.write_text("{\n")
    good.write_text("{}\n")
    assert files.main([str(bad), str(good)]) == 1
    assert capsys.readouterr().out.startswith(f"{bad}: cannot be read")
    assert files.main([str(good)]) == 0


def test_the_hooks_use_nothing_from_elsewhere() -> None:
    """Local hooks, with programs of .venv."""
    config = yaml.safe_load((ROOT / ".pre-commit-config.yaml").read_text(encoding="utf-8"))
    (repository,) = config["repos"]
    assert repository["repo"] == "local"
    for hook in repository["hooks"]:
        assert hook["language"] == "system"
        assert hook["entry"].startswith(".venv/bin/")
