"""docs/command-line.md and docs/troubleshooting.md say what the commands are."""

from __future__ import annotations

import re

import click
import pytest

from dev.command_line import EXAMPLES, PAGE, commands, page
from tests.acceptance.readme import ROOT

COMMANDS = dict(commands())


def options(command: click.Command) -> set[str]:
    """Every option of a command, in all its spellings."""
    return {word for param in command.params if isinstance(param, click.Option) for word in param.opts} | {"--help"}


def test_the_page_is_made_from_the_commands() -> None:
    """Every command and every option, and none that does not exist: `python -m dev.command_line` writes it anew."""
    assert PAGE.read_text() == page()


def test_examples_are_of_commands_that_exist() -> None:
    """And use options that they have."""
    for name, (typed, _) in EXAMPLES.items():
        assert typed.startswith(f"dispatcher {name}")
        assert set(re.findall(r"--[a-z-]+", typed)) <= options(COMMANDS[name])


@pytest.mark.parametrize("name", COMMANDS)
def test_what_prints_data_prints_json(name: str) -> None:
    """But for what runs until it is told to stop, what answers in a sentence, and scripts for shells."""
    if name not in {"up", "run", "worker", "completion", "keys revoke"}:
        assert "--json" in options(COMMANDS[name])


def test_commands_of_troubleshooting_exist() -> None:
    """Each line of a block, and each command in a sentence, with its options."""
    text = (ROOT / "docs" / "troubleshooting.md").read_text()
    calls = re.findall(r"dispatcher ([a-z][^\n`\")]*)", text)
    assert len(calls) > 15
    for call in calls:
        words = call.split()
        name = next((n for n in (" ".join(words[:2]), words[0]) if n in COMMANDS), None)
        assert name is not None, call
        assert {word for word in words if word.startswith("--")} <= options(COMMANDS[name]), call
