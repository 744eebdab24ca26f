"""Unique keys: one report of each month in an hour, and another one at once where the first failed."""

from __future__ import annotations

from typing import Any

from consumers import Registry, Retry
from examples.shop import Shop, show

jobs = Registry()


@jobs.handler("example.report", retry=Retry(max_attempts=1))
async def report(payload: dict[str, Any]) -> str:
    """Build a report, or fail to."""
    if payload.get("broken"):
        raise RuntimeError("the figures are not there yet")
    return f"report of {payload['month']}"


def main() -> None:
    """Ask for the same report several times."""
    with Shop() as shop:
        may: dict[str, Any] = {"key": f"{shop.run}-may", "for": 3600}
        june: dict[str, Any] = {"key": f"{shop.run}-june", "for": 3600, "until": "success"}
        shop.publish("example.report", {"month": "May"}, id=f"{shop.run}-1", unique=may)
        shop.publish("example.report", {"month": "May"}, id=f"{shop.run}-2", unique=may)
        shop.publish("example.report", {"month": "June", "broken": True}, id=f"{shop.run}-3", unique=june)
        shop.jobs(3)  # until it failed, its key is its own
        shop.publish("example.report", {"month": "June"}, id=f"{shop.run}-4", unique=june)
        shop.publish("example.report", {"month": "June"}, id=f"{shop.run}-5", unique=june)
        found = shop.jobs(5)
    show(
        sorted(found, key=lambda job: str(job["id"])),
        job=lambda job: job["id"][-1],
        month=lambda job: job["payload"]["month"],
        state=lambda job: job["state"],
        duplicate_of=lambda job: job.get("duplicate_of", "-")[-1],
    )


if __name__ == "__main__":
    main()
