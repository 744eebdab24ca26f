"""`make release-check TAG=v1.2.3`: may this commit be released under this tag?

The tag, the version in dispatcher/__init__.py, that of the chart and the section of CHANGELOG.md must say the same.
The notes of the release are that section, written to --notes. Nothing is published here.
"""

import argparse
import sys
from collections.abc import Sequence
from datetime import date
from pathlib import Path
from typing import Any

import yaml
from packaging.version import InvalidVersion, Version

from dev.changelog import UNRELEASED, ChangelogError, Section, sections
from dispatcher import __version__

ROOT = Path(__file__).resolve().parent.parent


def main(arguments: Sequence[str]) -> int:
    """0 if it may be released, 1 if not: each reason is said."""
    parser = argparse.ArgumentParser(prog="make release-check")
    parser.add_argument("tag", help="the tag: v and the version, as in v1.2.3")
    parser.add_argument("--notes", type=Path, help="where to write what CHANGELOG.md says of the version")
    given = parser.parse_args(arguments)
    changelog = (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")
    faults = check(given.tag, __version__, changelog, chart=_chart())
    for fault in faults:
        print(f"release: {fault}", file=sys.stderr)
    if faults:
        return 1
    if given.notes:
        given.notes.parent.mkdir(parents=True, exist_ok=True)
        given.notes.write_text(notes(given.tag, changelog), encoding="utf-8")
    print(f"release: {given.tag} may be released")
    return 0


def check(tag: str, version: str, changelog: str, *, chart: dict[str, Any] | None) -> list[str]:
    """What speaks against a release.

    `version` is ours, `chart` the fields of Chart.yaml, None where there is no chart.
    """
    faults = [*_tag_faults(tag, version), *_chart_faults(version, chart)]
    try:
        found = sections(changelog)
    except ChangelogError as error:
        return [*faults, f"CHANGELOG.md: {error}"]
    return [*faults, *(f"CHANGELOG.md: {fault}" for fault in _changelog_faults(version, found))]


def notes(tag: str, changelog: str) -> str:
    """What the changelog says of the tag's version."""
    (section,) = [each for each in sections(changelog) if f"v{each.version}" == tag]
    return section.text + "\n"


def _tag_faults(tag: str, version: str) -> list[str]:
    try:
        usual = str(Version(version))
    except InvalidVersion:
        return [f"dispatcher/__init__.py: {version} is no version (PEP 440)"]
    if usual != version:
        return [f"dispatcher/__init__.py: write {version} as {usual} (PEP 440)"]
    return (
        []
        if tag == f"v{version}"
        else [f"the tag is {tag}, and the version in dispatcher/__init__.py asks for v{version}"]
    )


def _chart_faults(version: str, chart: dict[str, Any] | None) -> list[str]:
    if chart is None:
        return []
    fields = ("version", "appVersion")
    return [f"the chart's {name} is {chart.get(name)}, not {version}" for name in fields if chart.get(name) != version]


def _changelog_faults(version: str, found: Sequence[Section]) -> list[str]:
    """The version stands first below an empty [Unreleased], with a date and entries; no version stands twice."""
    faults = []
    if not found or found[0].version != UNRELEASED:
        faults.append(f"the first section is not [{UNRELEASED}]")
    elif found[0].entries:
        faults.append(f"[{UNRELEASED}] has {len(found[0].entries)} entries: move them to [{version}]")
    released = [section for section in found if section.version != UNRELEASED]
    if not released or released[0].version != version:
        faults.append(f"[{version}] is not the newest version")
    else:
        faults += _section_faults(released[0])
    names = [section.version for section in found]
    return faults + [f"[{name}] stands there twice" for name in sorted(set(names)) if names.count(name) > 1]


def _section_faults(section: Section) -> list[str]:
    faults = []
    try:
        date.fromisoformat(section.date)
    except ValueError:
        faults.append(f"[{section.version}] has no date of the form 2025-01-31")
    if not section.entries:
        faults.append(f"[{section.version}] has no entry")
    return faults


def _chart() -> dict[str, Any] | None:
    found = sorted(ROOT.glob("helm/**/Chart.yaml"))
    if not found:
        return None
    chart: dict[str, Any] = yaml.safe_load(found[0].read_text(encoding="utf-8"))
    return chart


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
