"""What a module of handlers imports: quickly there, without the libraries of the broker and of the database."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest

#: Libraries of the worker's edges, and our packages around them.
FOREIGN = {"aio_pika", "aiormq", "pamqp", "motor", "pymongo", "bson", "starlette", "uvicorn", "watchfiles"}
OURS = {"dispatcher.edges.amqp", "dispatcher.edges.mongo"}


@pytest.mark.parametrize(
    "statement",
    [
        "from consumers import BatchContext, Cancel, Context, Registry, Retry, Snooze",
        "from consumers.testing import Simulation, run, run_batch",
        "import consumers.child",
    ],
)
def test_handlers_need_neither_broker_nor_database(statement: str) -> None:
    """In a process of its own: others here have loaded everything."""
    code = f"{statement}\nimport json, sys; print(json.dumps(sorted(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=True)
    loaded = set(json.loads(done.stdout))
    assert "consumers.registry" in loaded
    assert not {name.partition(".")[0] for name in loaded} & FOREIGN
    assert not loaded & OURS
