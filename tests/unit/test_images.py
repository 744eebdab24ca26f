"""Servers from images that are named: those, or an error; never another server that happens to be there."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from dev import compose, images
from dev import servers as found
from dev.process import ServerError
from tests.acceptance.readme import ROOT


def ignored(_: str) -> None:
    """A log that nobody reads."""


@pytest.fixture(autouse=True)
def nothing_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    """No variable of the run that these tests are part of, and nothing at the usual addresses."""
    for name in ("AMQP_URL", "DISPATCHER_AMQP__URL", "MONGO_URL", "DISPATCHER_MONGO__URL", "RABBITMQ"):
        monkeypatch.delenv(name, raising=False)
    for name in images.VARIABLES.values():
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(found, "amqp_answers", lambda url: None)
    monkeypatch.setattr(found, "mongo_answers", lambda url: None)


def test_the_usual_images_are_those_of_compose() -> None:
    """What the tests run on by default is what docker-compose.yml starts."""
    text = (ROOT / "docker-compose.yml").read_text(encoding="utf-8")
    for server in images.VARIABLES:
        assert images.image(server) in text


@pytest.mark.parametrize(("server", "name"), [("RabbitMQ", "rabbitmq:3.13-management"), ("MongoDB", "mongo:7")])
def test_a_named_image_is_taken(monkeypatch: pytest.MonkeyPatch, server: images.Server, name: str) -> None:
    """The variable beats docker-compose.yml."""
    monkeypatch.setenv(images.VARIABLES[server], name)
    assert images.image(server) == name


@pytest.mark.parametrize(
    ("variable", "default"),
    [("RABBITMQ_IMAGE", found.DEFAULT_AMQP_URL), ("MONGO_IMAGE", found.DEFAULT_MONGO_URL)],
)
def test_a_running_server_is_not_taken_for_a_named_image(
    monkeypatch: pytest.MonkeyPatch, variable: str, default: str
) -> None:
    """What answers at the usual address may be of any version; the other server is still looked for there."""
    tried: list[str] = []
    monkeypatch.setattr(found, "amqp_answers", tried.append)
    monkeypatch.setattr(found, "mongo_answers", tried.append)
    monkeypatch.setenv(variable, "x:1")
    found._find(ignored)
    assert set(tried) == {found.DEFAULT_AMQP_URL, found.DEFAULT_MONGO_URL} - {default}


def test_a_configured_server_is_used_all_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    """A run inside a test run, which inherits the variables, uses the servers that the run has."""
    monkeypatch.setenv("RABBITMQ_IMAGE", "rabbitmq:3.13-management")
    monkeypatch.setenv("DISPATCHER_AMQP__URL", "amqp://127.0.0.1:1")
    monkeypatch.setattr(found, "amqp_answers", lambda url: "3.13.7" if url == "amqp://127.0.0.1:1" else None)
    given = found._find(ignored)
    assert given.amqp_url == "amqp://127.0.0.1:1"
    assert found._must_be_containers(given) == []


def test_without_an_engine_a_named_image_is_an_error(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """No process of another version takes its place."""
    monkeypatch.setenv("MONGO_IMAGE", "mongo:7")
    monkeypatch.setattr(compose, "engine_answers", lambda: False)
    monkeypatch.setattr(found, "_from_processes", _never)
    with (
        pytest.raises(ServerError, match="MONGO_IMAGE=mongo:7 needs a Docker engine"),
        found.servers(data_dir=tmp_path, log=ignored),
    ):
        pass


@pytest.mark.parametrize("containers", ["compose", "testcontainers"])
def test_a_named_image_that_does_not_start_is_an_error(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, containers: found.Containers
) -> None:
    """With what the engine said."""
    monkeypatch.setenv("RABBITMQ_IMAGE", "rabbitmq:0")
    monkeypatch.setattr(compose, "engine_answers", lambda: True)
    monkeypatch.setattr(found, f"_from_{containers}", _broken)
    monkeypatch.setattr(found, "_from_processes", _never)
    with (
        pytest.raises(ServerError, match="RABBITMQ_IMAGE=rabbitmq:0 does not start here: no such image"),
        found.servers(data_dir=tmp_path, containers=containers, log=ignored),
    ):
        pass


@pytest.mark.parametrize("variable", ["RABBITMQ_IMAGE", "MONGO_IMAGE"])
def test_a_process_and_an_image_cannot_both_be_asked_for(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, variable: str
) -> None:
    """RABBITMQ=4 is a process; with an image in the same breath nobody could say what the run was on."""
    monkeypatch.setenv("RABBITMQ", "4")
    monkeypatch.setenv(variable, "x:1")
    with (
        pytest.raises(ServerError, match=f"RABBITMQ= asks for a process and {variable}=x:1 for containers"),
        found.servers(data_dir=tmp_path, log=ignored),
    ):
        pass


def _never(*_: Any) -> None:
    pytest.fail("another server was started in its place")


def _broken(*_: Any) -> None:
    raise RuntimeError("no such image")
