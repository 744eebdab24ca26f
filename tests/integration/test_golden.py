"""What a real run writes to queues and collections has the shape of what is kept in tests/golden."""

from __future__ import annotations

import json

import pytest

from dev import golden
from tests.conftest import make_settings
from tests.support import Installation

pytestmark = pytest.mark.integration


async def test_everything_written_has_the_shape_that_is_kept() -> None:
    """Names and types of messages, their headers, and documents; each in the version that it says."""
    installation = Installation(make_settings(DISPATCHER_LANES='["default"]'))
    try:
        taken = await golden.capture(installation.environment())
    finally:
        installation.remove()
    kept = {file: json.loads(file.read_text()) for file in golden.golden_files()}
    present = {f"{name}.json": golden.version_in(value) for name, value in taken.items()}
    latest = {file.name: value for file, value in kept.items() if file.parent.name == f"v{present.get(file.name)}"}
    assert present.keys() == latest.keys()
    for name, value in taken.items():
        assert (name, golden.shape(value)) == (name, golden.shape(latest[f"{name}.json"]))
