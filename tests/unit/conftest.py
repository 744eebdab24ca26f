"""What unit tests share: an executor, and Hypothesis without a deadline (machines are busy), with few examples."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest
from hypothesis import HealthCheck, settings

from consumers.executor import Executor
from tests.processes import ROOT
from tests.unit.child_handlers import TARGET

settings.register_profile(
    "unit", deadline=None, max_examples=40, database=None, suppress_health_check=[HealthCheck.too_slow]
)
settings.load_profile("unit")


@pytest.fixture
async def executor(monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Executor]:
    """An executor whose children find this project."""
    monkeypatch.chdir(ROOT)
    made = Executor(threads=4, target=TARGET, max_result_bytes=1_000)
    yield made
    await made.close()
