"""Handlers of `make groups`: each call writes down what it got, and some members fail their first attempt."""

from __future__ import annotations

import json
import os
import signal
from pathlib import Path
from typing import Any

from consumers import BatchContext, Registry, Retry
from tests.faults.executions import LEDGER_VARIABLE

jobs = Registry()
TYPE = "gathered"


@jobs.handler(TYPE, retry=Retry(max_attempts=3, base=0.25))
async def gathered(payloads: list[dict[str, Any]], ctx: BatchContext) -> list[Any]:
    """Fail alone what says so, once."""
    line = {"batch": ctx.id, "executions": [[member.id, member.execution] for member in ctx.members]}
    with Path(os.environ[LEDGER_VARIABLE]).open("a") as file:
        file.write(json.dumps(line) + "\n")
    return [
        ValueError("once") if payload.get("fails") and member.attempt == 1 else None
        for payload, member in zip(payloads, ctx.members, strict=True)
    ]


@jobs.handler("poisoned", retry=Retry(max_attempts=2, base=0.25))
async def poisoned(payloads: list[dict[str, Any]]) -> None:
    """Die of a member that says so."""
    if any(payload.get("kills") for payload in payloads):
        os.kill(os.getpid(), signal.SIGKILL)
