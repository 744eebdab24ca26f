"""What docs/command-line.md shows is what the commands print, on real servers."""

from __future__ import annotations

import json

import pytest

from dev.command_line import EXAMPLES, commands
from dev.samples import STORE, capture, skeleton
from tests.conftest import make_settings
from tests.support import Installation

pytestmark = pytest.mark.integration

#: Commands that run on, or whose output is another on every machine.
NOT_CAPTURED = {"up", "run", "worker", "completion", "doctor"}


def test_every_command_has_a_sample() -> None:
    """None is left with its --help."""
    assert set(EXAMPLES) == {name for name, _ in commands()}
    assert set(json.loads(STORE.read_text())) == set(EXAMPLES) - NOT_CAPTURED


async def test_samples_are_what_commands_print() -> None:
    """Columns, labels, keys of JSON and sentences, once numbers, times and rows are left out."""
    installation = Installation(make_settings(DISPATCHER_LANES='["default"]'))
    try:
        taken = await capture(installation.environment())
    finally:
        installation.remove()
    prefix = installation.settings.amqp.prefix
    for name, (typed, printed) in json.loads(STORE.read_text()).items():
        assert (name, taken[name][0]) == (name, typed)
        assert (name, skeleton(taken[name][1].replace(prefix, ""))) == (name, skeleton(printed))
