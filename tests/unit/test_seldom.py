"""What happens often is spoken of seldom."""

from __future__ import annotations

from consumers.seldom import MOST, Seldom


def test_each_subject_is_news_once_in_its_time() -> None:
    """The time counts from what was told, not from what was kept quiet."""
    seldom = Seldom(60.0)
    told = [(at, subject) for at in range(0, 121, 20) for subject in ("a.b", "c.d") if seldom.is_news(subject, at)]
    assert told == [(at, subject) for at in (0, 60, 120) for subject in ("a.b", "c.d")]


def test_what_clients_name_does_not_fill_the_memory() -> None:
    """Beyond the limit it begins anew."""
    seldom = Seldom(60.0)
    assert all(seldom.is_news(str(number), 0.0) for number in range(3 * MOST + 1))
    assert len(seldom._told) == 1
