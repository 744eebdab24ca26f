"""What a delivery says of itself."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any, cast

import pytest

from dispatcher.edges.amqp import Delivery
from dispatcher.edges.amqp.consumer import SUSPECT_AFTER


def delivered(headers: dict[str, Any], *, again: bool) -> Delivery:
    """A message with these headers."""
    return Delivery("intake.v1", 1, b"{}", "a.b", again, headers, None, None, cast(Any, SimpleNamespace(open=True)))


@pytest.mark.parametrize(("count", "suspect"), [(0, False), (SUSPECT_AFTER - 1, False), (SUSPECT_AFTER, True)])
def test_what_came_back_often_is_suspect(count: int, suspect: bool) -> None:
    """The broker counts."""
    delivery = delivered({"x-delivery-count": count}, again=True)
    assert (delivery.delivery_count, delivery.suspect) == (count, suspect)


@pytest.mark.parametrize("headers", [{}, {"x-delivery-count": "many"}, {"x-delivery-count": None}])
def test_no_number_is_no_count(headers: dict[str, Any]) -> None:
    """Whatever stands there."""
    assert delivered(headers, again=True).delivery_count == 0


def test_a_client_cannot_claim_that_its_message_came_back() -> None:
    """Some brokers write no count on a first delivery, and leave what the client wrote."""
    delivery = delivered({"x-delivery-count": 2**40}, again=False)
    assert (delivery.delivery_count, delivery.suspect) == (0, False)
