"""The table of every setting in docs/configuration.md, made from the settings' model and config/default.yaml.

``python -m dev.settings_table`` writes it anew; a unit test fails where that was forgotten.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml
from pydantic import BaseModel

from config import Settings
from config.settings import DEFAULTS

PAGE = Path(__file__).parent.parent / "docs" / "configuration.md"
BEGIN, END = "<!-- made by python -m dev.settings_table -->\n", "<!-- end -->\n"


def table() -> str:
    """The sections with their rows, as Markdown."""
    values, said = yaml.safe_load(DEFAULTS.read_text()), dict(comments())
    parts = []
    for name, field in Settings.model_fields.items():
        section = field.annotation
        if isinstance(section, type) and issubclass(section, BaseModel):
            keys = section.model_json_schema()["properties"]
            rows = [_row(f"{name}.{key}", values[name][key], said, _bounds(keys[key])) for key in keys]
            parts.append(f"\n### {name}\n\n| setting | default | what it is | bounds |\n|---|---|---|---|\n")
            parts += rows
    return "".join(parts) + "\n"


def with_table(page: str) -> str:
    """The page with the table as it must be."""
    before, rest = page.split(BEGIN)
    return before + BEGIN + table() + END + rest.split(END)[1]


def _row(path: str, default: Any, said: dict[str, str], bounds: str) -> str:
    return f"| `{path}` | `{json.dumps(default)}` | {said[path].replace('|', '/')} | {bounds} |\n"


def comments() -> Iterator[tuple[str, str]]:
    """The comment above each key of default.yaml."""
    section, lines = "", list[str]()
    for line in DEFAULTS.read_text().splitlines():
        if key := re.match(r"( *)([a-z_]+):", line):
            section = section if key[1] else key[2]
            yield (f"{section}.{key[2]}" if key[1] else section), " ".join(lines).rstrip(".").replace("<", "&lt;")
            lines = []
        elif line.strip():
            lines.append(line.strip(" #"))
        else:
            lines = []


def _bounds(schema: dict[str, Any]) -> str:
    """What a value may be, of a field's JSON schema."""
    if "anyOf" in schema:
        return ", or ".join(_bounds(each) for each in schema["anyOf"])
    if "enum" in schema:
        return ", ".join(f"`{word}`" for word in schema["enum"])
    if "pattern" in schema:
        return f"`{schema['pattern'].strip('^$')}`"
    most, least, above = (schema.get(name) for name in ("maximum", "minimum", "exclusiveMinimum"))
    if least is not None or above is not None:
        low = f"{least:,.6g}" if least is not None else f"above {above:,.6g}"
        return f"{low} to {_plain(most)}" if most is not None else f"{low}{' or more' if least is not None else ''}"
    return {"null": "null", "array": "a list", "boolean": "`true`, `false`"}.get(schema["type"], "text")


def _plain(number: float) -> str:
    return f"{number:,.0f}" if number == int(number) else str(number)


if __name__ == "__main__":
    PAGE.write_text(with_table(PAGE.read_text()))
