"""Expiry: what comes too late does not start; what finishes too late is known."""

from __future__ import annotations

import asyncio
from typing import Any

from consumers import Registry
from examples.shop import Shop, show

jobs = Registry()


@jobs.handler("example.offer")
async def offer(payload: dict[str, Any]) -> str:
    """Make an offer, which takes a while."""
    await asyncio.sleep(payload.get("takes", 0))
    return "made"


@jobs.handler("example.offers")
async def offers(several: list[dict[str, Any]]) -> list[str]:
    """Make several."""
    return [f"made with {len(several) - 1} others" for _ in several]


def main() -> None:
    """Two that are alone, and three of a group, one of which is over before the group is flushed."""
    with Shop() as shop:
        shop.publish("example.offer", {"of": "today only"}, delay=1.0, expires=0.5)
        shop.publish("example.offer", {"of": "soon", "takes": 0.5}, deadline=0.2)
        group = {"key": shop.run, "max_size": 100, "max_wait": 2.5}
        for what, expires in (("tea", 60.0), ("milk", 0.5), ("salt", 60.0)):
            shop.publish("example.offers", {"of": what}, group=group, expires=expires)
        found = shop.jobs(5)
    show(
        found,
        of=lambda job: job["payload"]["of"],
        state=lambda job: job["state"],
        result=lambda job: job.get("result") or "-",
        missed_deadline=lambda job: "yes" if job.get("breached") else "no",
    )


if __name__ == "__main__":
    main()
