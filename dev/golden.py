"""One of everything that crosses a wire or a disk, taken from a real run: ``python -m dev.golden``, by hand.

It starts servers of its own and writes what is not there yet to tests/golden/v<n>, where n is the version that the
format says: what an earlier version wrote is never written over. A test takes the same again on the servers of the
suite, and holds the shapes of both together.
"""

from __future__ import annotations

import asyncio
import json
import re
import tempfile
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, get_args

from bson import json_util
from pydantic import BaseModel

from config import load_settings
from dev.golden_run import Capture
from dispatcher.edges.operator import whoami
from schemas import Answer, BatchMessage, EventBatch, JobRequest, Question, WorkMessage

ROOT = Path(__file__).resolve().parent.parent
STORE = ROOT / "tests" / "golden"
SCHEMAS = STORE / "schemas.json"
#: The models of the formats, by the first word of their golden files' names.
FORMATS: dict[str, type[BaseModel]] = {
    "work": WorkMessage,
    "batch": BatchMessage,
    "events": EventBatch,
    "question": Question,
    "answer": Answer,
    "request": JobRequest,
}
#: What clients write has no version: fields are only ever added to it.
ADDITIVE = frozenset({"request"})


def versions_of(model: type[BaseModel]) -> set[int]:
    """The versions of a format that the present code reads."""
    return set(get_args(model.model_fields["v"].annotation)) if "v" in model.model_fields else {1}


def version_of(model: type[BaseModel]) -> int:
    """The latest of them."""
    return max(versions_of(model))


def schema_of(model: type[BaseModel]) -> Any:
    """A format's fields, types and bounds as JSON Schema, without words."""
    return _without_words(model.model_json_schema())


def _without_words(schema: Any) -> Any:
    if isinstance(schema, dict):
        return {k: _without_words(v) for k, v in schema.items() if k not in {"description", "title"}}
    return [_without_words(item) for item in schema] if isinstance(schema, list) else schema


def schema_changes(stored: Mapping[str, Mapping[str, Any]]) -> list[str]:
    """What the present formats have that differs from what is stored of their version, a sentence each."""
    found = []
    for name, model in FORMATS.items():
        version, schema = version_of(model), schema_of(model)
        known = stored.get(name, {}).get(str(version))
        found += [
            f"{name} v{old} is stored, and not read: see docs/versioning.md"
            for old in sorted(map(int, stored.get(name, {})))
            if old not in versions_of(model)
        ]
        if "v" in model.model_fields and model.model_fields["v"].default != 1:
            found.append(f"{name}: a body without v is one of version 1, so that must stay the default")
        if known is None:
            found.append(f"{name} v{version} is not stored: python -m dev.golden")
        elif known != schema:
            how = "added fields are stored by python -m dev.golden" if name in ADDITIVE else "give it a new version"
            found.append(f"{name} v{version} is not what it was: {how}, see docs/versioning.md")
    return found


def updated(stored: Mapping[str, Mapping[str, Any]]) -> dict[str, dict[str, Any]]:
    """The stored schemas with those that are new. What is stored of a version stays, but that fields may be added to
    what clients write.
    """
    result = {name: dict(versions) for name, versions in stored.items()}
    for name, model in FORMATS.items():
        version, schema = str(version_of(model)), schema_of(model)
        of_name = result.setdefault(name, {})
        if version not in of_name or (name in ADDITIVE and covers(schema, of_name[version])):
            of_name[version] = schema
    return result


def covers(new: Any, old: Any) -> bool:
    """Whether a schema has everything that the old one has, as it was; requiring no more."""
    if isinstance(old, dict) and isinstance(new, dict):
        parts = old.keys() | ({"required"} & new.keys())
        return all(name in new and name in old and covers(new[name], old[name]) for name in parts)
    return bool(new == old)


def stored_schemas() -> dict[str, dict[str, Any]]:
    """What is stored of each format, by name and version."""
    return json.loads(SCHEMAS.read_text()) if SCHEMAS.exists() else {}


def golden_files(kinds: Iterable[str] = ()) -> list[Path]:
    """The stored files, of all versions; only of these kinds where some are given."""
    wanted = set(kinds)
    return [p for p in sorted(STORE.glob("v*/*.json")) if not wanted or p.name.partition(".")[0] in wanted]


def version_in(taken: Any) -> int:
    """The version that a message or document says."""
    content = taken.get("body", taken.get("document"))
    return int(content.get("v", 1)) if isinstance(content, dict) else 1


def shape(value: Any) -> Any:
    """The names and types of what is stored, without its values."""
    if isinstance(value, dict):
        (first, *more) = value or ("",)
        if first.startswith("$") and not more:
            return first
        return {name: shape(part) for name, part in sorted(value.items())}
    if isinstance(value, list):
        return sorted({json.dumps(shape(part), sort_keys=True) for part in value})
    return "null" if value is None else type(value).__name__


async def capture(env: Mapping[str, str]) -> dict[str, Any]:
    """Everything, by name, as it is stored. ``env`` names an installation of which nothing is there yet."""
    taken = await Capture(load_settings(env), dict(env)).run()
    prefix = env.get("DISPATCHER_AMQP__PREFIX", "")
    return {name: json.loads(_nobody(json_util.dumps(value), prefix)) for name, value in taken.items()}


def _nobody(text: str, prefix: str) -> str:
    """Without the names of this machine, its user, its folders and the installation."""
    text = text.replace(prefix, "") if prefix else text
    user, _, host = whoami().partition("@")
    text = text.replace(f"{user}@{host}", "ann@hq").replace(f"{ROOT}/", "")
    text = re.sub(r'File \\"/[^"]*/site-packages/', r'File \\"', text)
    return re.sub(rf"{re.escape(host)}-\d+", "host-4242", text)


def keep(taken: Mapping[str, Any]) -> None:
    """Write what is not there yet."""
    for name, value in sorted(taken.items()):
        file = STORE / f"v{version_in(value)}" / f"{name}.json"
        file.parent.mkdir(parents=True, exist_ok=True)
        if not file.exists():
            file.write_text(json.dumps(value, indent=1) + "\n")
            print(f"new: {file.relative_to(ROOT)}")
    SCHEMAS.write_text(json.dumps(updated(stored_schemas()), indent=1, sort_keys=True) + "\n")


def main() -> None:
    """Take everything, and write what is not there yet."""
    from dev.mongo import LocalMongo
    from dev.rabbit import LocalRabbit

    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        with LocalRabbit(folder / "rabbitmq") as rabbit, LocalMongo(folder / "mongo") as mongo:
            env = {"DISPATCHER_AMQP__URL": rabbit.url, "DISPATCHER_MONGO__URL": mongo.url}
            taken = asyncio.run(capture(env))
    keep(taken)


if __name__ == "__main__":
    main()
