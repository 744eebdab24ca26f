"""Handlers of `tests.faults.priorities`."""

from __future__ import annotations

import asyncio
from typing import Any

from consumers import Registry

jobs = Registry()


@jobs.handler("load.sleep")
async def sleep(payload: dict[str, Any]) -> None:
    """Takes ``ms`` milliseconds."""
    await asyncio.sleep(payload["ms"] / 1000)
