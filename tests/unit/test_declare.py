"""Declaring anew while services run."""

from __future__ import annotations

import importlib
import logging
from unittest.mock import AsyncMock

import pytest

from dispatcher.core.topology import Names, build

#: The package has a function of the same name.
module = importlib.import_module("dispatcher.edges.amqp.declare")

pytestmark = pytest.mark.unit


async def test_any_failure_is_tried_again(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    """Its caller tries again whatever happened; aiormq raises a bare Exception when a connection breaks half-way."""

    async def breaks(*_: object) -> None:
        raise Exception

    closed = AsyncMock()
    monkeypatch.setattr(module, "_connect", AsyncMock())
    monkeypatch.setattr(module, "_declare_all", breaks)
    monkeypatch.setattr(module, "close", closed)
    with caplog.at_level(logging.ERROR):
        await module.declare_again("amqp://localhost", build(Names(), ["default"]))
    assert "cannot declare the topology" in caplog.text
    assert closed.await_count == 1
    with pytest.raises(module.BrokerError):  # a command says a sentence, not a traceback
        await module.declare("amqp://localhost", build(Names(), ["default"]))
