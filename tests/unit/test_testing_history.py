"""`consumers.testing` says of an attempt what history would, and no more."""

from __future__ import annotations

from typing import Any

from config import load_settings
from consumers import Context, Registry
from consumers.testing import Simulation, run


def test_one_attempt_shows_what_history_would_keep() -> None:
    """Of a type with private fields: neither they nor what an error may repeat of them."""
    registry = Registry()

    @registry.handler("private")
    async def private(payload: dict[str, Any]) -> dict[str, Any]:
        if payload.get("fail"):
            raise ValueError(f"bad card {payload['card']}")
        return {"card": payload["card"], "ok": True}

    settings = load_settings({"DISPATCHER_TYPES": '{"private": {"redact": ["card"]}}'})
    attempt = run(registry, "private", {"card": "4111"}, settings=settings)
    with Simulation(registry, settings=settings) as sim:
        simulated = sim.submit("private", {"card": "4111"})
        sim.run()
    assert attempt.result == simulated.result
    assert "4111" not in str(attempt.result)
    failed = run(registry, "private", {"card": "4111", "fail": True}, settings=settings)
    assert failed.error is not None
    assert (failed.error.type, "4111" in failed.error.model_dump_json()) == ("ValueError", False)


def test_progress_after_the_end_is_not_heard() -> None:
    """As a worker does not hear it: from a task or a thread that the handler left behind."""
    registry, left = Registry(), list[Context]()

    @registry.handler("leaves")
    async def leaves(payload: dict[str, Any], ctx: Context) -> None:
        ctx.progress(1)
        left.append(ctx)

    with Simulation(registry) as sim:
        job = sim.submit("leaves")
        sim.run()
        left[0].progress(2)
        sim.advance(1)
        assert job.document["progress"]["done"] == 1
    left[0].progress(3)  # the loop is closed by now
