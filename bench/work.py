"""What both sides publish: the same payload, about 250 bytes of JSON."""

from __future__ import annotations

from typing import Any


def payload(number: int) -> dict[str, Any]:
    """The payload of one job."""
    return {
        "number": number,
        "customer": f"customer-{number % 997:04d}",
        "email": f"somebody.{number:06d}@example.com",
        "subject": "Your order is on its way",
        "amount": 1299,
        "currency": "EUR",
        "express": False,
        "lines": [{"sku": "A-1000-BLUE", "count": 2}, {"sku": "B-2000", "count": 1}],
    }
