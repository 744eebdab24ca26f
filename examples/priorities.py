"""Priorities: members of one key and two priorities are two groups, and the critical ones need not wait."""

from __future__ import annotations

from typing import Any

from consumers import BatchContext, Registry
from examples.shop import Shop, show

jobs = Registry()


@jobs.handler("example.alerts")
async def alert(alerts: list[dict[str, Any]], ctx: BatchContext) -> list[str]:
    """Tell of several alerts at once."""
    return [f"with {len(alerts) - 1} others" for _ in alerts]


def main() -> None:
    """The first member of each group says how long it waits: the critical one less."""
    with Shop() as shop:
        for number in range(6):
            critical = number % 2 == 1
            group = {"key": shop.run, "max_size": 100, "max_wait": 1.5 if critical else 5.0}
            shop.publish("example.alerts", {"n": number}, priority="critical" if critical else "low", group=group)
        found = shop.jobs(6)
    show(
        sorted(found, key=lambda job: str(job["attempts"][0]["started_at"])),
        priority=lambda job: job["priority"],
        n=lambda job: job["payload"]["n"],
        result=lambda job: job["result"],
    )


if __name__ == "__main__":
    main()
