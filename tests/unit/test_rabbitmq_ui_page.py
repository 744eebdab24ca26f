"""docs/rabbitmq-ui.md has what the broker has: every queue and exchange, with its signs, and nothing else."""

from __future__ import annotations

import re

import pytest

from dev.screenshots.features import signs
from dispatcher.core.topology import Names, build
from tests.acceptance.readme import ROOT

PAGE = (ROOT / "docs" / "rabbitmq-ui.md").read_text()
TOPOLOGY = build(Names(""), ["default"])


def general(name: str) -> str:
    """The name as the page writes it, for all of its kind."""
    for pattern, written in (
        (r"work\.v1\..+", "work.v1.<lane>.<priority>"),
        (r"(parked|suspect)\.v1\..+", r"\1.v1.<lane>"),
        (r"(delay|after)\.v1\.\d+", r"\1.v1.<level>"),
        (r"group\.v1\.\d+", "group.v1.<partition>"),
    ):
        name = re.sub(f"^{pattern}$", written, name)
    return name


def section(heading: str) -> str:
    """A section of the page, without those below it."""
    return PAGE.split(f"\n## {heading}\n")[1].split("\n## ")[0].split("\n### ")[0]


def test_every_queue_has_its_row() -> None:
    """With the signs that the UI shows; a queue that is not there has none."""
    rows = dict(re.findall(r"^\| `(\S+)` \| `(D[^`]*)` \|", section("Queues"), re.MULTILINE))
    assert rows == {general(queue.name): " ".join(signs(queue.arguments)) for queue in TOPOLOGY.queues}


def test_every_exchange_has_its_row() -> None:
    """With its type and signs, and with every kind of what is bound to it."""
    rows = re.findall(r"^\| `(\S+)` \| (\w+) \| `(D[^`]*)` \| [^|]* \| (.*) \|$", section("Exchanges"), re.MULTILINE)
    made = {(general(each.name), each.type, " ".join(signs(each.arguments))) for each in TOPOLOGY.exchanges}
    assert {row[:3] for row in rows} == made
    bound = {name: text for name, _, _, text in rows}
    for binding in TOPOLOGY.bindings:
        named = f"`{general(binding.destination)}`" in bound[general(binding.source)]
        assert named, f"{binding.source} to {binding.destination}"


def test_every_binding_pattern_is_written() -> None:
    """The routing keys are those of the topology, with placeholders for their words."""
    text = section("Exchanges")
    for source, pattern in {(general(b.source), general_key(b.source, b.routing_key)) for b in TOPOLOGY.bindings}:
        (row,) = re.findall(rf"^\| `{re.escape(source)}` .*$", text, re.MULTILINE)
        assert not pattern or f"`{pattern}`" in row, f"{source}: {pattern}"


def general_key(source: str, key: str) -> str:
    """A routing key as the page writes it."""
    if source.startswith("after."):
        level = source.rpartition(".")[2]
        return re.sub(r"<level>\.\d\d", "<level>.<lower>", key.replace(f".{level}", ".<level>", 1))
    if source == "delay.v1":
        return re.sub(r"\d\d", "<level>", key)
    if source == "due.v1" and key.startswith("~"):
        return re.sub(r"\d+", "<partition>", key)
    return re.sub(r"^default\.\w+", "<lane>.<priority>", key)


@pytest.mark.parametrize("queue", sorted({general(queue.name) for queue in TOPOLOGY.queues}))
def test_each_queue_may_be_purged_or_not(queue: str) -> None:
    """The table of buttons says so of every queue, once."""
    rows = section("Buttons").split("| *Purge* |")[1].split("| *Move messages*")[0].splitlines()
    columns = [row.split("|")[0 if i == 0 else 2] for i, row in enumerate(rows) if row.strip()]
    assert sum(f"`{queue}`" in column for column in columns) == 1
