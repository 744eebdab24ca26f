"""What a wheel and an sdist must have, on small ones made here; tests/acceptance/test_dist.py builds the real ones."""

from __future__ import annotations

import io
import tarfile
import zipfile
from pathlib import Path

import pytest

from dev import dist
from tests.acceptance.readme import ROOT

FILES = {"config/default.yaml", "dispatcher/__init__.py", "dispatcher/py.typed"}
METADATA = """\
Metadata-Version: 2.4
Name: job-dispatcher
Version: 1.2.0
License-Expression: Apache-2.0

What it is.
"""
_INFO = "job_dispatcher-1.2.0.dist-info"


def wheel(folder: Path, *, without: str = "", besides: str = "", metadata: str = METADATA) -> Path:
    """A wheel of FILES."""
    names = (FILES | {f"{_INFO}/licenses/LICENSE", f"{_INFO}/RECORD"} | {besides}) - {without, ""}
    path = folder / "job_dispatcher-1.2.0-py3-none-any.whl"
    with zipfile.ZipFile(path, "w") as archive:
        for name in sorted(names):
            archive.writestr(name, "")
        archive.writestr(f"{_INFO}/METADATA", metadata)
    return path


def sdist(folder: Path, *, without: str = "", besides: str = "") -> Path:
    """An sdist of FILES."""
    names = (FILES | {"CHANGELOG.md", "LICENSE", "README.md", "pyproject.toml", "PKG-INFO"} | {besides}) - {without, ""}
    path = folder / "job_dispatcher-1.2.0.tar.gz"
    with tarfile.open(path, "w:gz") as archive:
        for name in sorted(names):
            archive.addfile(tarfile.TarInfo(f"job_dispatcher-1.2.0/{name}"), io.BytesIO())
    return path


def test_both_in_good_order(tmp_path: Path) -> None:
    """Nothing is said."""
    dist.check(wheel(tmp_path), sdist(tmp_path), FILES)


@pytest.mark.parametrize("name", sorted(FILES))
def test_a_file_that_is_missing(tmp_path: Path, name: str) -> None:
    """In either: a setting's default, a marker of types, a module."""
    with pytest.raises(dist.DistError, match=f"the wheel lacks {name}"):
        dist.check(wheel(tmp_path, without=name), sdist(tmp_path), FILES)
    with pytest.raises(dist.DistError, match=f"the sdist lacks {name}"):
        dist.check(wheel(tmp_path), sdist(tmp_path, without=name), FILES)


def test_a_file_too_many(tmp_path: Path) -> None:
    """What lies about in a folder is not shipped."""
    with pytest.raises(dist.DistError, match=r"the wheel has config/own.yaml, which git does not know"):
        dist.check(wheel(tmp_path, besides="config/own.yaml"), sdist(tmp_path), FILES)
    with pytest.raises(dist.DistError, match=r"the sdist has \.env, which"):
        dist.check(wheel(tmp_path), sdist(tmp_path, besides=".env"), FILES)


def test_a_licence_that_is_missing(tmp_path: Path) -> None:
    """Apache-2.0 (section 4) has it handed on with every copy."""
    with pytest.raises(dist.DistError, match="the wheel has no LICENSE"):
        dist.check(wheel(tmp_path, without=f"{_INFO}/licenses/LICENSE"), sdist(tmp_path), FILES)
    with pytest.raises(dist.DistError, match="the sdist lacks LICENSE"):
        dist.check(wheel(tmp_path), sdist(tmp_path, without="LICENSE"), FILES)


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ("Version: 1.2.0", "Version: one", "version"),
        ("Apache-2.0", "Apache 2", "license"),
        ("License-Expression: Apache-2.0\n", "", "no licence"),
        ("What it is.\n", "", "no description"),
        ("Name: job-dispatcher", "Name: job dispatcher", "name"),
    ],
)
def test_metadata_that_an_index_would_refuse(tmp_path: Path, old: str, new: str, said: str) -> None:
    """Found here, not when it is uploaded."""
    bad = wheel(tmp_path, metadata=METADATA.replace(old, new))
    with pytest.raises(dist.DistError, match=said):
        dist.check(bad, sdist(tmp_path), FILES)


def test_every_package_is_marked_as_typed() -> None:
    """PEP 561: without the file a type checker does not read our annotations."""
    assert {f"{package}/py.typed" for package in dist.PACKAGES} <= dist.sources(ROOT)


def test_a_build_that_fails_says_why(tmp_path: Path) -> None:
    """With what the build said."""
    (tmp_path / "pyproject.toml").write_text("[project]\n")
    with pytest.raises(dist.DistError, match="the build failed"):
        dist.build(tmp_path, tmp_path / "dist")
