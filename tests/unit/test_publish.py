"""``dispatcher publish`` where nobody answers."""

from __future__ import annotations

import importlib
from typing import Any, ClassVar

import pytest
from click.testing import CliRunner

from dispatcher.cli.main import main

publish = importlib.import_module("dispatcher.cli.publish")


class Unanswered:
    """A client whose jobs are published, and never answered."""

    ids: ClassVar[list[str | None]] = []
    fields: ClassVar[list[dict[str, Any]]] = []

    def __init__(self, *_: Any, **__: Any) -> None:
        pass

    async def __aenter__(self) -> Unanswered:
        return self

    async def __aexit__(self, *_: Any) -> None:
        pass

    async def submit(self, *_: Any, id: str | None, **fields: Any) -> None:
        """Take the job."""
        self.ids.append(id)
        self.fields.append(fields)
        raise TimeoutError


def _without_broker(monkeypatch: pytest.MonkeyPatch) -> None:
    async def reached(_: str) -> None:
        pass

    monkeypatch.setattr(publish, "Client", Unanswered)
    monkeypatch.setattr(publish, "check_broker", reached)


@pytest.mark.parametrize("options", [[], ["--json"]], ids=["text", "json"])
def test_what_nobody_answered_has_an_id_to_look_for(monkeypatch: pytest.MonkeyPatch, options: list[str]) -> None:
    """The job is on its way: exit code 0, the id on stdout, what is not known on stderr."""
    _without_broker(monkeypatch)
    finished = CliRunner().invoke(main, ["publish", "a.b", *options], env={"DISPATCHER_API_KEY": "a key"})
    assert finished.exit_code == 0
    sent = Unanswered.ids[-1]
    assert sent
    assert sent in finished.stdout
    assert "published" in finished.stderr + finished.stdout


@pytest.mark.parametrize(
    ("options", "unique"),
    [
        (["--unique-key", "may", "--unique-for", "1h"], {"key": "may", "for": 3600.0}),
        (
            ["--unique-key", "may", "--unique-for", "60", "--unique-until", "final"],
            {"key": "may", "for": 60.0, "until": "final"},
        ),
    ],
)
def test_a_unique_key(monkeypatch: pytest.MonkeyPatch, options: list[str], unique: dict[str, Any]) -> None:
    """As the message's field."""
    _without_broker(monkeypatch)
    finished = CliRunner().invoke(main, ["publish", "a.b", *options], env={"DISPATCHER_API_KEY": "a key"})
    assert finished.exit_code == 0
    assert Unanswered.fields[-1]["unique"] == unique


@pytest.mark.parametrize("options", [["--unique-key", "may"], ["--unique-for", "60"], ["--unique-until", "final"]])
def test_half_a_unique_key(options: list[str]) -> None:
    """Names both options that it needs."""
    finished = CliRunner().invoke(main, ["publish", "a.b", *options], env={"DISPATCHER_API_KEY": "a key"})
    assert finished.exit_code == 2
    assert "both --unique-key and --unique-for" in finished.stderr


@pytest.mark.parametrize(
    ("options", "group"),
    [
        (["--group-key", "a"], {"key": "a"}),
        (
            ["--group-key", "a", "--group-size", "7", "--group-wait", "1m"],
            {"key": "a", "max_size": 7, "max_wait": 60.0},
        ),
    ],
)
def test_a_group(monkeypatch: pytest.MonkeyPatch, options: list[str], group: dict[str, Any]) -> None:
    """As the message's field; what is left out is intake's default."""
    _without_broker(monkeypatch)
    finished = CliRunner().invoke(main, ["publish", "a.b", *options], env={"DISPATCHER_API_KEY": "a key"})
    assert finished.exit_code == 0
    assert Unanswered.fields[-1]["group"] == group


@pytest.mark.parametrize("options", [["--group-size", "7"], ["--group-wait", "1"]])
def test_a_group_without_its_key(options: list[str]) -> None:
    """Names the option that it needs."""
    finished = CliRunner().invoke(main, ["publish", "a.b", *options], env={"DISPATCHER_API_KEY": "a key"})
    assert finished.exit_code == 2
    assert "--group-key" in finished.stderr
