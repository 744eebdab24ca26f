"""Reading CHANGELOG.md: its sections, newest first, in the form of Keep a Changelog 1.1.0."""

import re
from dataclasses import dataclass

UNRELEASED = "Unreleased"

_HEADING = re.compile(r"^## (.*)$", re.MULTILINE)
_TITLE = re.compile(r"\[(?P<version>[^\]]+)\](?: - (?P<date>\S+))?(?P<yanked> \[YANKED\])?")


class ChangelogError(Exception):
    """A heading that is none of the form ``## [1.2.3] - 2025-01-31``."""


@dataclass(frozen=True)
class Section:
    """One version: its name, its date as it is written (empty for none), and the text below its heading."""

    version: str
    date: str
    text: str

    @property
    def entries(self) -> list[str]:
        """The first line of each entry."""
        return [line for line in self.text.splitlines() if line.startswith("- ")]


def sections(text: str) -> list[Section]:
    """The versions in the order of the file. Raises ChangelogError for a heading that cannot be read."""
    headings = list(_HEADING.finditer(text))
    ends = [heading.start() for heading in headings[1:]] + [len(text)]
    return [
        _section(heading[1], text[heading.end() : end].strip()) for heading, end in zip(headings, ends, strict=False)
    ]


def _section(title: str, text: str) -> Section:
    found = _TITLE.fullmatch(title)
    if found is None:
        raise ChangelogError(f'the heading "## {title}" is not of the form "## [1.2.3] - 2025-01-31"')
    return Section(found["version"], found["date"] or "", text)
