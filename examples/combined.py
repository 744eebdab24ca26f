"""All at once: members of two priorities, with ids that are sent twice, retries, expiry and a unique key."""

from __future__ import annotations

from typing import Any

from consumers import BatchContext, Registry, Retry
from examples.shop import Shop, attempts, show

jobs = Registry()


@jobs.handler("example.invoices", timeout=30, retry=Retry(max_attempts=3, base=0.25))
async def invoice(orders: list[dict[str, Any]], ctx: BatchContext) -> list[str | Exception]:
    """Write the invoices of several orders; a busy customer's succeeds at the second attempt."""
    return [
        ConnectionError("busy") if order.get("busy") and member.attempt == 1 else f"one of {len(orders)}"
        for order, member in zip(orders, ctx.members, strict=True)
    ]


def main() -> None:
    """Every order is sent twice, as by an application that never heard the first answer."""
    orders: list[tuple[str, dict[str, Any], dict[str, Any]]] = [
        ("ann", {}, {"priority": "high"}),
        ("bob", {"busy": True}, {"priority": "high"}),
        ("cid", {}, {"priority": "low"}),
        ("dan", {}, {"priority": "low", "expires": 0.5}),
        ("eve", {}, {"priority": "low", "retry": {"max_attempts": 1}}),
    ]
    with Shop() as shop:
        group = {"key": shop.run, "max_size": 50, "max_wait": 4.0}
        for _ in range(2):
            for name, payload, fields in orders:
                shop.publish(
                    "example.invoices", {"for": name, **payload}, id=f"{shop.run}-{name}", group=group, **fields
                )
        once = {"key": f"{shop.run}-cid", "for": 3600}
        for number in range(2):
            shop.publish(
                "example.invoices",
                {"for": f"cid's reminder {number}"},
                id=f"{shop.run}-reminder-{number}",
                group=group,
                priority="low",
                unique=once,
            )
        found = shop.jobs(7)
    batches = {job["batch"]: f"{job['priority']}" for job in found if "batch" in job}
    show(
        sorted(found, key=lambda job: str(job["id"])),
        order=lambda job: job["payload"]["for"],
        state=lambda job: job["state"],
        batch=lambda job: batches.get(job.get("batch"), "-"),
        attempts=attempts,
        result=lambda job: job.get("result") or "-",
        sent_again=lambda job: job.get("resent", 0),
    )
    print(f"batches: {len(batches)}")


if __name__ == "__main__":
    main()
