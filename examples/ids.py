"""Ids: the same order is sent three times, and is one job."""

from __future__ import annotations

from typing import Any

from consumers import Registry
from examples.shop import Shop, attempts, show

jobs = Registry()


@jobs.handler("example.order")
async def order(payload: dict[str, Any]) -> dict[str, Any]:
    """Take an order, once."""
    return {"taken": payload["item"]}


def main() -> None:
    """Send it again as after a lost answer: the first content stands."""
    with Shop() as shop:
        job_id = f"order-{shop.run}"
        for item in ("tea", "tea", "coffee"):
            receipt = shop.publish("example.order", {"item": item}, id=job_id)
            print(f"sent {item}: {'known already' if receipt.duplicate else 'accepted'}")
        found = shop.jobs(1, lambda job: job.get("resent") == 2)
    show(found, result=lambda job: job["result"], attempts=attempts, sent_again=lambda job: job["resent"])


if __name__ == "__main__":
    main()
