"""What this and every earlier version wrote to a wire or a disk is read; formats change with a new version alone."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal

import pytest
from bson import json_util
from bson.binary import Binary
from bson.datetime_ms import DatetimeMS
from pydantic import create_model

from dev import golden
from dispatcher.core.history import merge
from dispatcher.edges.mongo import claims, jobs, keys, stats
from dispatcher.services.operations import parked_work, work_of
from schemas import Answer, EventBatch, JobRequest, Question, Resent, WorkMessage, is_batch, read_steps
from schemas.events import encode_batches
from schemas.job import Model

#: Names of collections, whose golden files have no model.
COLLECTIONS = {"claims", "unique_keys", "api_keys", "key_usage", "audit", "cancels", "scheduled", "stats"}
FILES = golden.golden_files()


def load(file: Path) -> Any:
    """What a golden file holds."""
    return json.loads(file.read_text())


def document(file: Path) -> dict[str, Any]:
    """A golden document as the driver of MongoDB hands it out."""
    found: dict[str, Any] = dated(json_util.loads(json.dumps(load(file)["document"])))
    return found


def dated(value: Any) -> Any:
    """With dates as our driver is set up to read them."""
    if isinstance(value, dict):
        return {name: dated(part) for name, part in value.items()}
    if isinstance(value, list):
        return [dated(part) for part in value]
    return DatetimeMS(value) if hasattr(value, "tzinfo") else value


def named(*kinds: str) -> Any:
    """The golden files of these kinds, for a test."""
    files = golden.golden_files(kinds)
    return pytest.mark.parametrize("file", files, ids=[f"{file.parent.name}-{file.stem}" for file in files])


def read_and_write(file: Path) -> tuple[bytes, bytes]:
    """The body of a golden message, and the same as the present code writes what it read."""
    body = json.dumps(load(file)["body"], separators=(",", ":"), ensure_ascii=False).encode()
    kind = file.name.partition(".")[0]
    if kind == "batch":
        assert is_batch(body)
        return body, golden.FORMATS["batch"].decode(body).encode()  # type: ignore[attr-defined]
    if kind == "work":
        (work,) = read_steps(body)
        return body, work.encode()
    if kind == "events":
        (again,) = encode_batches(EventBatch.decode(body).events)
        return body, again
    model = Question if kind == "question" else Answer
    return body, model.model_validate_json(body).model_dump_json().encode()


def test_there_is_a_file_of_each_kind() -> None:
    """Of each format, kind of event and collection; else its changes would pass."""
    kinds = {file.name.partition(".")[0] for file in FILES}
    assert kinds >= {*golden.FORMATS, *COLLECTIONS, "job", "reply", "rejected"}
    told = {load(file)["body"]["events"][0]["kind"] for file in golden.golden_files(["events"])}
    assert told == {"accepted", "started", "progressed", "ended", "moved", "rerun", "resent", "refused"}


@named("work", "batch", "events", "question", "answer")
def test_messages_are_read_and_written_the_same(file: Path) -> None:
    """Every one of every version is read; of the present version it is also written as it was."""
    written, again = read_and_write(file)
    if file.parent.name == f"v{golden.version_of(golden.FORMATS[file.name.partition('.')[0]])}":
        assert json.loads(again) == json.loads(written)


@named("work")
def test_what_is_parked_can_be_replayed(file: Path) -> None:
    """A parked message of an earlier version is a job's."""
    body = json.dumps(load(file)["body"]).encode()
    assert parked_work(body) == WorkMessage.decode(body)


@named("request")
def test_requests_are_read(file: Path) -> None:
    """A client need not know of a new version."""
    request = JobRequest.model_validate(load(file)["body"])
    assert request.id == "full"


@named("job")
def test_documents_of_jobs_are_read_and_merged(file: Path) -> None:
    """An event that comes late is merged into it; nothing else in it changes. Its job can be run again."""
    doc = jobs.from_bson(document(file))
    assert jobs.to_bson(doc) == document(file)
    if doc["state"] == "rejected":
        return
    place = {name: doc[name] for name in ("app", "id", "type", "lane", "priority", "accepted_at")}
    merged = merge(doc, [Resent(**place, at=doc["accepted_at"], mark="m")])
    assert {k: v for k, v in merged.items() if k not in {"resent", "resent_marks", "rev"}} == {
        k: v for k, v in doc.items() if k not in {"resent", "resent_marks", "rev"}
    }
    assert work_of(doc).key == ("shop", doc["id"])


#: How the present code reads a document of a collection, and what tells that it did.
READERS: dict[str, Callable[[dict[str, Any]], Any]] = {
    "claims": lambda doc: claims._claim(doc).job == "full",
    "unique_keys": lambda doc: claims._claim(doc).until == "success",
    "api_keys": lambda doc: keys._record(doc).types == ("golden.*",),  # type: ignore[union-attr]
    "scheduled": lambda doc: WorkMessage.decode(bytes(Binary(doc["body"]))).id == "moved",
    "stats": lambda doc: stats._cell(doc["cells"][0]).states["succeeded"] == 1,
}


@named(*READERS)
def test_documents_are_read(file: Path) -> None:
    """Of the collections whose documents are made values."""
    assert READERS[file.name.partition(".")[0]](document(file))


def test_formats_are_what_they_were() -> None:
    """What changes a field, a type or a bound gives the format a new version, and goes on reading the old one."""
    assert golden.schema_changes(golden.stored_schemas()) == []


class _Changed(WorkMessage):
    colour: str = "blue"


def _with(monkeypatch: pytest.MonkeyPatch, name: str, model: type[Model]) -> None:
    monkeypatch.setitem(golden.FORMATS, name, model)


def test_a_field_without_a_new_version_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever adds it hears what to do, and cannot store it over what is there."""
    _with(monkeypatch, "work", _Changed)
    stored = golden.stored_schemas()
    assert golden.schema_changes(stored) == [
        "work v1 is not what it was: give it a new version, see docs/versioning.md",
    ]
    assert golden.updated(stored) == stored


def test_a_new_version_is_stored_beside_the_old_one(monkeypatch: pytest.MonkeyPatch) -> None:
    """And nothing is told once it is."""
    second = create_model("Second", __base__=_Changed, v=(Literal[1, 2], 1))
    _with(monkeypatch, "work", second)
    stored = golden.stored_schemas()
    assert golden.schema_changes(stored) == ["work v2 is not stored: python -m dev.golden"]
    after = golden.updated(stored)
    assert after["work"].keys() == {"1", "2"}
    assert after["work"]["1"] == stored["work"]["1"]
    assert golden.schema_changes(after) == []


def test_a_version_that_does_not_read_the_old_one_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    """What lies in queues was written by the old one; and a body without a version is one of version 1."""
    second = create_model("Second", __base__=WorkMessage, v=(Literal[2], 2))
    _with(monkeypatch, "work", second)
    found = golden.schema_changes(golden.updated(golden.stored_schemas()))
    assert found == [
        "work v1 is stored, and not read: see docs/versioning.md",
        "work: a body without v is one of version 1, so that must stay the default",
    ]


def test_a_field_of_clients_may_be_added_and_none_taken_away(monkeypatch: pytest.MonkeyPatch) -> None:
    """Added ones are stored; what is missing, narrower or required is told, and never stored."""
    stored = golden.stored_schemas()
    more = create_model("More", __base__=JobRequest, colour=(str | None, None))
    _with(monkeypatch, "request", more)
    assert golden.schema_changes(stored) == [
        "request v1 is not what it was: added fields are stored by python -m dev.golden, see docs/versioning.md"
    ]
    assert golden.schema_changes(golden.updated(stored)) == []
    for worse in (
        create_model("Required", __base__=JobRequest, colour=(str, ...)),
        create_model("Narrower", __base__=JobRequest, priority=(Literal["high", "normal"], "normal")),
    ):
        _with(monkeypatch, "request", worse)
        assert golden.updated(stored) == stored


def test_shapes_tell_names_and_types() -> None:
    """Values do not count; dates and bytes are types."""
    assert golden.shape({"b": 1, "a": [1, 2, None]}) == {"a": ['"int"', '"null"'], "b": "int"}
    assert golden.shape({"$date": "2026-01-01T00:00:00Z"}) == "$date"
    assert golden.shape({"x": 1}) != golden.shape({"x": 1.5})
    assert golden.shape({}) == {}
