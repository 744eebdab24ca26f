"""Which RabbitMQ is started: the one that RABBITMQ= asks for, or the machine's."""

from __future__ import annotations

from pathlib import Path

import pytest

from dev import provision
from dev import servers as found
from dev.process import ServerError


def ignored(_: str) -> None:
    """A log that nobody reads."""


def test_an_unknown_rabbitmq_is_refused_by_name(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """A sentence names what was asked for and what there is; nothing is looked for or fetched before."""
    monkeypatch.setenv("RABBITMQ", "5")
    with pytest.raises(ServerError, match=r"RABBITMQ=5 is not known: give RABBITMQ=4 "):
        provision.rabbit_programs(tmp_path, ignored)


def test_the_asked_rabbitmq_runs_on_its_own_files(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Every program of it is started with the folder's files, wherever the machine has a RabbitMQ of its own."""
    monkeypatch.setenv("RABBITMQ", "4")
    monkeypatch.setattr(provision, "unpacked", lambda release, package, cache, log: cache / package / release)
    programs = provision.rabbit_programs(tmp_path, ignored)
    root = str(tmp_path / "rabbitmq-server" / "trixie")
    for program in (programs.server, programs.ctl, programs.epmd):
        command = programs.command(program, "--help")
        assert command[0] == "unshare"
        assert command[-3:] == [root, str(program), "--help"]


@pytest.mark.parametrize(("asked", "tried"), [("", True), ("4", False)])
def test_a_running_rabbitmq_is_not_taken_for_the_asked_one(
    monkeypatch: pytest.MonkeyPatch, asked: str, tried: bool
) -> None:
    """What answers at the usual address may be of any version: it is not even asked when one is wanted."""
    urls: list[str] = []
    for name in ("AMQP_URL", "DISPATCHER_AMQP__URL"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("RABBITMQ", asked)
    monkeypatch.setattr(found, "amqp_answers", urls.append)
    monkeypatch.setattr(found, "mongo_answers", lambda url: None)
    assert found._find(ignored).amqp_url == ""
    assert (found.DEFAULT_AMQP_URL in urls) is tried
