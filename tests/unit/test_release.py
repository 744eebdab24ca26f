"""What may be released: tag, version, chart and changelog say the same."""

from __future__ import annotations

from pathlib import Path

import pytest

from dev import changelog, release
from dispatcher import __version__
from tests.acceptance.readme import ROOT

GOOD = """\
# Changelog

## [Unreleased]

## [1.2.0] - 2025-01-31

### Added

- Something new, in a sentence
  of two lines.

### Fixed

- Something.

## [1.1.0] - 2024-12-24

- The first.
"""
CHART = {"version": "1.2.0", "appVersion": "1.2.0"}


def faults(tag: str = "v1.2.0", version: str = "1.2.0", text: str = GOOD, chart: dict[str, str] = CHART) -> list[str]:
    """What speaks against the release."""
    return release.check(tag, version, text, chart=chart)


def test_a_release_in_good_order() -> None:
    """Nothing speaks against it, with a chart or without."""
    assert faults() == []
    assert release.check("v1.2.0", "1.2.0", GOOD, chart=None) == []


@pytest.mark.parametrize("tag", ["1.2.0", "v1.2", "v1.2.1", "v1.2.0-rc1", "release", ""])
def test_another_tag(tag: str) -> None:
    """A tag is v and the version, to the letter."""
    assert faults(tag) == [f"the tag is {tag}, and the version in dispatcher/__init__.py asks for v1.2.0"]


@pytest.mark.parametrize(("version", "said"), [("1.2.x", "is no version"), ("1.2.0-rc1", "as 1.2.0rc1")])
def test_a_version_that_packages_do_not_have(version: str, said: str) -> None:
    """Wheel, image and tag would otherwise be called differently."""
    assert any(said in fault for fault in faults(f"v{version}", version))


@pytest.mark.parametrize("field", ["version", "appVersion"])
def test_a_chart_of_another_version(field: str) -> None:
    """A chart is released with the image that it starts."""
    assert faults(chart=CHART | {field: "1.1.0"}) == [f"the chart's {field} is 1.1.0, not 1.2.0"]


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (GOOD.replace("## [Unreleased]\n", ""), "the first section is not [Unreleased]"),
        (GOOD.replace("[Unreleased]\n", "[Unreleased]\n\n- Left.\n"), "1 entries: move them to [1.2.0]"),
        (GOOD.replace("[1.2.0]", "[1.3.0]"), "[1.2.0] is not the newest version"),
        (GOOD.replace("[1.2.0]", "[Unreleased]"), "[Unreleased] stands there twice"),
        (GOOD.replace("[1.1.0]", "[1.2.0]"), "[1.2.0] stands there twice"),
        (GOOD.replace(" - 2025-01-31", ""), "[1.2.0] has no date"),
        (GOOD.replace("2025-01-31", "2025-02-31"), "[1.2.0] has no date"),
        (GOOD.replace("2025-01-31", "soon"), "[1.2.0] has no date"),
        (GOOD.replace("- Something", "Something"), "[1.2.0] has no entry"),
        (GOOD.replace("## [1.1.0]", "## 1.1.0"), 'the heading "## 1.1.0'),
        ("", "the first section is not [Unreleased]"),
    ],
)
def test_a_changelog_that_does_not_fit(text: str, said: str) -> None:
    """Each fault is named, with the section that has it."""
    found = faults(text=text)
    assert any(said in fault for fault in found), found
    assert all(fault.startswith("CHANGELOG.md: ") for fault in found)


def test_the_notes_are_the_section() -> None:
    """All of it, and nothing of its neighbours."""
    text = release.notes("v1.2.0", GOOD)
    assert text.startswith("### Added\n")
    assert text.endswith("- Something.\n")
    assert "The first" not in text


def test_a_yanked_version_can_be_read() -> None:
    """Keep a Changelog marks it so."""
    section = changelog.sections("## [1.0.0] - 2024-01-02 [YANKED]\n- Broken.\n")[0]
    assert (section.version, section.date) == ("1.0.0", "2024-01-02")


def test_our_own_changelog_can_be_read() -> None:
    """It has what the next release is to find."""
    found = changelog.sections((ROOT / "CHANGELOG.md").read_text(encoding="utf-8"))
    assert found[0].version == changelog.UNRELEASED
    assert found[0].entries or len(found) > 1


def test_our_own_version_and_chart_agree() -> None:
    """What can be wrong before there is a tag is not left for the release to find."""
    assert release._tag_faults(f"v{__version__}", __version__) == []
    assert release._chart_faults(__version__, release._chart()) == []


def test_the_command_says_why_not(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Exit code 1 and each reason on stderr; no notes are written."""
    _project(monkeypatch, tmp_path)
    assert release.main(["v1.3.0", "--notes", str(tmp_path / "notes.md")]) == 1
    assert "the tag is v1.3.0" in capsys.readouterr().err
    assert not (tmp_path / "notes.md").exists()


def test_the_command_writes_the_notes(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Exit code 0, and the notes where they were asked for."""
    _project(monkeypatch, tmp_path)
    assert release.main(["v1.2.0", "--notes", str(tmp_path / "build" / "notes.md")]) == 0
    assert (tmp_path / "build" / "notes.md").read_text() == release.notes("v1.2.0", GOOD)


def _project(monkeypatch: pytest.MonkeyPatch, folder: Path) -> None:
    """A project in a folder of its own."""
    (folder / "CHANGELOG.md").write_text(GOOD)
    (folder / "helm" / "chart").mkdir(parents=True)
    (folder / "helm" / "chart" / "Chart.yaml").write_text("version: 1.2.0\nappVersion: 1.2.0\n")
    monkeypatch.setattr(release, "ROOT", folder)
    monkeypatch.setattr(release, "__version__", "1.2.0")
