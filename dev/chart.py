"""What is made from the comments of helm/values.yaml: the table in helm/README.md and helm/values.schema.json.

``python -m dev.chart`` writes both anew; a test fails where that was forgotten.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml

from dev.chart_schema import Schema, schema

CHART = Path(__file__).parent.parent / "helm"
VALUES, SCHEMA, README = CHART / "values.yaml", CHART / "values.schema.json", CHART / "README.md"
BEGIN, END = "<!-- made by python -m dev.chart -->\n", "<!-- end -->\n"
#: What has no default, and so no comment in values.yaml, but one of `workers`.
WORKER_ALONE = {
    "handlers": "MODULE:REGISTRY of its handlers, as `dispatcher worker` takes it.",
    "image": "An image of its own, which has the handlers; its entrypoint is dispatcher.",
    "image.repository": "Where your registry has it.",
    "image.tag": "Tag; this or digest is required.",
    "image.digest": "Digest (sha256:…), which counts before the tag.",
    "image.pullPolicy": "Always, IfNotPresent or Never; left out: that of image.",
}


def comments() -> Iterator[tuple[str, str]]:
    """The comment above each key of values.yaml that has one, by the key's path, such as ``image.tag``."""
    parents: list[tuple[int, str]] = []
    lines: list[str] = []
    for line in VALUES.read_text(encoding="utf-8").splitlines():
        if key := re.match(r"( *)([A-Za-z]+):", line):
            indent = len(key[1])
            parents = [parent for parent in parents if parent[0] < indent] + [(indent, key[2])]
            if lines:
                yield ".".join(name for _, name in parents), " ".join(lines)
            lines = []
        elif line.lstrip().startswith("#"):
            lines.append(line.strip(" #"))
        else:
            lines = []


def defaults() -> dict[str, Any]:
    """The chart's values."""
    loaded: dict[str, Any] = yaml.safe_load(VALUES.read_text(encoding="utf-8"))
    return loaded


def rows(values: dict[str, Any], said: dict[str, str], at: str = "") -> Iterator[tuple[str, Any, str]]:
    """Path, default and comment of every value; a map is gone into where its keys have comments (default: None)."""
    for key, value in values.items():
        path = f"{at}{key}"
        if isinstance(value, dict) and any(name.startswith(f"{path}.") for name in said):
            if path in said:
                yield path, None, said[path]
            yield from rows(value, said, f"{path}.")
        else:
            yield path, value, said.get(path, "")


def table() -> str:
    """Every value, as Markdown."""
    lines = ["", "| value | default | what it is |", "|---|---|---|"]
    for path, value, said in rows(defaults(), dict(comments())):
        default = "" if value is None else f"`{json.dumps(value)}`"
        lines.append(f"| `{path}` | {default} | {said.replace('|', '/')} |")
    return "\n".join(lines) + "\n\n"


def with_table(page: str) -> str:
    """The page with the table as it must be."""
    before, rest = page.split(BEGIN)
    return before + BEGIN + table() + END + rest.split(END)[1]


def described() -> Schema:
    """The schema, with the comments as descriptions."""
    made: Schema = json.loads(json.dumps(schema()))  # no part stands in two places, where it has two descriptions
    said = dict(comments())
    pod = {path.removeprefix("pod."): text for path, text in said.items() if path.startswith("pod.")}
    own = {path.removeprefix("workerDefaults."): text for path, text in said.items() if path.startswith("workerDef")}
    properties = made["properties"]
    _describe(properties["workers"]["additionalProperties"], {**pod, **own, **WORKER_ALONE})
    for service in properties["services"]["properties"].values():
        _describe(service, pod)
    _describe(made, said)
    return made


def _describe(part: Schema, said: dict[str, str], at: str = "") -> None:
    for key, value in part.get("properties", {}).items():
        path = f"{at}{key}"
        if path in said:
            value["description"] = said[path]
        _describe(value, said, f"{path}.")


def schema_text() -> str:
    """values.schema.json as it must be."""
    return json.dumps(described(), indent=2, ensure_ascii=False) + "\n"


if __name__ == "__main__":
    SCHEMA.write_text(schema_text(), encoding="utf-8")
    README.write_text(with_table(README.read_text(encoding="utf-8")), encoding="utf-8")
