"""Reading the documentation: its code blocks, as a newcomer would paste them."""

from __future__ import annotations

import re
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent.parent
README = ROOT / "README.md"

_BLOCK = re.compile(r"^```(\w+)\n(.*?)^```$", re.MULTILINE | re.DOTALL)


def blocks(language: str, page: Path = README) -> list[str]:
    """Every code block of a language, in order."""
    return [text for kind, text in _BLOCK.findall(page.read_text(encoding="utf-8")) if kind == language]


def files(page: Path) -> dict[str, str]:
    """The Python blocks of a page that say in their first line under which name to save them."""
    named = [(re.match(r"# ([\w/]+\.py)\n", text), text) for text in blocks("python", page)]
    return {match[1]: text for match, text in named if match}


def block(language: str, holding: str) -> str:
    """The one block of a language that holds a text."""
    found = [text for text in blocks(language) if holding in text]
    assert len(found) == 1, f"README.md has {len(found)} {language} blocks with {holding!r}"
    return found[0]
