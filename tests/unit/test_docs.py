"""The documentation says what the code does."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import get_args

import click
import pytest

from config import Settings
from dispatcher.cli.main import main
from dispatcher.core.admission import NOT_BUILT
from dispatcher.core.refusals import Code
from dispatcher.core.topology import Names, build
from schemas import Event, EventBatch, JobRequest, WorkMessage
from schemas.events import encode_batches
from tests.acceptance.readme import README, ROOT, block, blocks

DOCS = ROOT / "docs"
PAGES = [README, ROOT / "CONTRIBUTING.md", ROOT / "SECURITY.md", *sorted(DOCS.rglob("*.md"))]


def examples(kind: str) -> list[str]:
    """The marked JSON examples of docs/formats.md."""
    text = (DOCS / "formats.md").read_text()
    return re.findall(rf"^```json {kind}\n(.*?)^```$", text, re.MULTILINE | re.DOTALL)


def test_refusals_are_listed_in_the_order_in_which_they_count() -> None:
    """docs/refusals.md has a row for every code, in the code's order."""
    rows = re.findall(r"^\| `(\w+)` \|", (DOCS / "refusals.md").read_text(), re.MULTILINE)
    assert rows == [str(code) for code in Code]


def test_the_work_message_example_is_one() -> None:
    """What docs/formats.md shows is read, and written back the same."""
    (text,) = examples("work")
    work = WorkMessage.decode(text.encode())
    assert json.loads(work.encode()) == json.loads(text)


def test_the_events_example_is_a_batch_of_every_kind() -> None:
    """Every kind of event is shown, and each is written as shown."""
    (text,) = examples("events")
    batch = EventBatch.decode(text.encode())
    kinds = {event.kind for event in batch.events}
    assert kinds == {kind.model_fields["kind"].default for kind in get_args(get_args(Event)[0])}
    (body,) = encode_batches(batch.events)
    assert json.loads(body) == json.loads(text)


def test_the_readme_lists_the_fields_of_a_message() -> None:
    """The table has every field that is built; the others are named as not built."""
    text = README.read_text()
    names = re.findall(r"^\| (`\w+`(?: or `\w+`)?) \| ", text, re.MULTILINE)
    rows = re.findall(r"\w+(?=`)", " ".join(names))
    assert sorted(rows) == sorted(JobRequest.model_fields)
    (sentence,) = re.findall(r"^Not built yet.*$", text, re.MULTILINE)
    assert set(re.findall(r"`(\w+)`", sentence)) - {"unsupported"} == NOT_BUILT


def test_every_queue_is_explained() -> None:
    """docs/architecture.md names every queue and exchange of the topology."""
    text = (DOCS / "architecture.md").read_text()
    made = build(Names(""), ["default"])
    for name in {q.name for q in made.queues} | {e.name for e in made.exchanges}:
        general = re.sub(r"^work\.v1\..*", "work.v1.<lane>.<priority>", name)
        general = re.sub(r"^(parked|suspect)\.v1\..*", r"\1.v1.<lane>", general)
        general = re.sub(r"^(delay|after)\.v1\..*", r"\1.v1.00", general)
        general = re.sub(r"^group\.v1\..*", "group.v1.0", general)
        assert f"`{general}`" in text, general


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_lead_somewhere(page: Path) -> None:
    """Every relative link of the documentation names a file."""
    for target in re.findall(r"\]\(([^)#:]+)\)", page.read_text()):
        assert (page.parent / target).exists(), f"{page.name} links to {target}"


def test_commands_in_the_readme_exist() -> None:
    """Each `dispatcher …` in the README names a command, and each option it uses."""
    spans = re.findall(r"`(dispatcher [^`]+)`", README.read_text())
    lines = [line for text in blocks("sh") for line in text.splitlines() if "dispatcher " in line]
    calls = [re.search(r"dispatcher (.*)", text)[1] for text in spans + lines]  # type: ignore[index]
    assert len(calls) > 10
    for call in calls:
        words = re.split(r"[\s)]+", call)
        command, context = main.get_command(click.Context(main), words[0]), words[0]
        assert command is not None, call
        sub = getattr(command, "commands", {})
        if sub:
            command, context = sub.get(words[1]), f"{context} {words[1]}"
            assert command is not None, call
        options = {option for p in command.params for option in p.opts}
        for word in words:
            if word.startswith("--"):
                assert word in options, f"{context} has no {word}"


def test_settings_in_the_docs_exist() -> None:
    """Each DISPATCHER_<SECTION>__<KEY> that a page names is a setting."""
    for page in PAGES:
        for section, key in re.findall(r"DISPATCHER_([A-Z]+)__([A-Z_]+[A-Z])", page.read_text()):
            if (section, key) == ("WORKER", "CONCURENCY"):
                continue  # the mistyped one of ADR 6
            model = Settings.model_fields[section.lower()].annotation
            assert key.lower() in model.model_fields, f"{page.name}: {section}__{key}"  # type: ignore[union-attr]


def test_the_readme_shows_the_demo_and_the_tests() -> None:
    """The two commands of a newcomer stand in blocks of their own."""
    assert block("sh", "make demo").strip() == "make demo"
    assert "make test" in block("sh", "make check")
