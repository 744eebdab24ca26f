"""Nothing is shipped whose licence would bind those who use Job Dispatcher."""

from __future__ import annotations

from hashlib import sha256
from pathlib import Path

import pytest

from dev import licences
from tests.acceptance.readme import ROOT


def test_our_own_licence_is_the_whole_text() -> None:
    """Of Apache-2.0, byte by byte as its makers publish it (https://www.apache.org/licenses/LICENSE-2.0.txt)."""
    text = (ROOT / "LICENSE").read_bytes()
    assert sha256(text).hexdigest() == "cfc7749b96f63bd31c3c42b5c471bf756814053e847c10f3eb003417bc523d30"


def test_every_dependency_may_be_shipped() -> None:
    """Each package of requirements/runtime.txt is installed here, says its licence, and it is an allowed one."""
    names = licences.pinned(licences.LOCK_FILE.read_text(encoding="utf-8"))
    assert {"aio-pika", "pymongo", "pydantic-core"} <= set(names)
    found = {name: licences.licence_of(name) for name in names}
    assert {name: licence for name, licence in found.items() if not licences.allowed(licence)} == {}


@pytest.mark.parametrize("expression", ["MIT", "Apache-2.0 AND MIT", "GPL-2.0-only OR MIT", "MIT AND ISC OR AGPL-3.0"])
def test_allowed(expression: str) -> None:
    """All parts of one choice are allowed."""
    assert licences.allowed(expression)


@pytest.mark.parametrize(
    "expression",
    [
        "",
        "GPL-3.0-or-later",
        "AGPL-3.0-only",
        "LGPL-2.1-only",
        "MIT AND GPL-2.0-only",
        "GPL-2.0-only OR AGPL-3.0-only",
        "MIT-like",
        "Apache-2.0 WITH LLVM-exception",
        "(MIT)",
        "UNKNOWN",
    ],
)
def test_not_allowed(expression: str) -> None:
    """What is not known to be harmless has to be looked at."""
    assert not licences.allowed(expression)


@pytest.mark.parametrize(
    ("expression", "classifiers", "free_text", "said"),
    [
        ("MIT", ["GNU General Public License v3 (GPLv3)"], "GPL", "MIT"),
        ("", ["MIT License"], "GPL", "MIT"),
        (
            "",
            ["MIT License", "GNU General Public License v3 (GPLv3)"],
            "",
            "MIT AND GNU General Public License v3 (GPLv3)",
        ),
        ("", [], "Apache License, Version 2.0", "Apache-2.0"),
        ("", [], "Mine alone\nAll rights reserved", "Mine alone"),
        ("", [], "", ""),
    ],
)
def test_where_metadata_says_it(expression: str, classifiers: list[str], free_text: str, said: str) -> None:
    """The newest field counts before classifiers, those before the free text."""
    assert licences.told(expression, classifiers, free_text) == said


def test_a_package_that_is_not_installed_is_unknown() -> None:
    """It cannot be asked, so it is not allowed."""
    assert licences.licence_of("no-such-package-of-ours") == ""


def test_the_command_marks_what_is_not_allowed(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A row each, and exit code 1."""
    lock = tmp_path / "runtime.txt"
    lock.write_text("pyyaml==6.0 \\\n    --hash=sha256:00\nno-such-package-of-ours==1.0\n")
    monkeypatch.setattr(licences, "LOCK_FILE", lock)
    assert licences.main() == 1
    good, bad = capsys.readouterr().out.splitlines()
    assert good.split() == ["pyyaml", "MIT"]
    assert bad.endswith("unknown   <- not allowed")
