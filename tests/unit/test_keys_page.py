"""docs/keys.md says what the code does: commands, options, settings, states, actions."""

from __future__ import annotations

import inspect
import re
from typing import get_args

import click

from config import Settings
from dispatcher.cli.keys import _known, create
from dispatcher.cli.main import main
from dispatcher.core import keys
from dispatcher.core.refusals import Code
from dispatcher.services import key_watch, keyring
from dispatcher.services.intake import LOOK_UP_EVERY
from tests.acceptance.readme import ROOT
from tests.unit.samples import RECORD

PAGE = (ROOT / "docs" / "keys.md").read_text(encoding="utf-8")


def calls() -> list[str]:
    """What follows `dispatcher` wherever the page shows a command."""
    blocks = re.findall(r"^```sh\n(.*?)^```$", PAGE, re.MULTILINE | re.DOTALL)
    spans = re.findall(
        r"`([^`\n]*\bdispatcher [^`\n]*)`", re.sub(r"^```.*?^```$", "", PAGE, flags=re.MULTILINE | re.DOTALL)
    )
    lines = [line for text in [*blocks, *spans] for line in text.splitlines()]
    return [found for line in lines for found in re.findall(r"\bdispatcher ((?:[^|)]|\$\()+)", line)]


def test_commands_and_options_exist() -> None:
    """Each command that the page shows, with each of its options."""
    shown = calls()
    assert len(shown) >= 20
    for call in shown:
        words = call.split()
        command = main.get_command(click.Context(main), words[0])
        assert command is not None, call
        if isinstance(command, click.Group):
            command = command.commands.get(words[1])
            assert command is not None, call
        options = {option for parameter in command.params for option in parameter.opts}
        assert {word for word in words if word.startswith("--")} <= options, call


def test_every_command_of_keys_and_audit_is_shown() -> None:
    """And every scope that a key can have."""
    shown = calls()
    for name in ("keys", "audit"):
        group = main.get_command(click.Context(main), name)
        assert isinstance(group, click.Group)
        for command in group.commands:
            assert any(call.startswith(f"{name} {command}") for call in shown), command
    options = {option for parameter in create.params for option in parameter.opts} - {"--json"}
    assert set(re.findall(r"^\| `(--[a-z-]+)` \|", PAGE, re.MULTILINE)) == options


def test_states_codes_and_fields_are_those_of_the_code() -> None:
    """The table of states; the codes that it names; what `keys list --json` has."""
    assert set(re.findall(r"^\| `([a-z]+)` \| [^|]*\| is ", PAGE, re.MULTILINE)) == set(get_args(keys.KeyState))
    for code in re.findall(r"`([a-z]+_key)`", PAGE):
        assert code in {str(each) for each in Code}, code
    known = _known(RECORD, None, 0, 14)
    for field in ("last_used_at", "accepted", "refused", "replaced_by", "replaces", "expires_at", "expiring"):
        assert field in known
        assert f"`{field}`" in PAGE


def test_actions_of_the_audit_are_those_of_the_code() -> None:
    """No more and no fewer."""
    made = set(re.findall(r'"(key\.[a-z]+)"', inspect.getsource(keyring)))
    assert set(re.findall(r"`(key\.[a-z]+)`", PAGE)) == made


def test_settings_and_figures_are_those_of_the_code() -> None:
    """Names of settings, and the intervals that the page promises."""
    for section, name in re.findall(r"`(keys|intake)\.([a-z_]+)`", PAGE):
        model = Settings.model_fields[section].annotation
        assert name in model.model_fields, name  # type: ignore[union-attr]
    assert key_watch.WRITE_EVERY == 2.0
    assert "every two seconds" in PAGE
    assert f"at most {1 / LOOK_UP_EVERY:.0f} times a second" in PAGE
