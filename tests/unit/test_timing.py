"""A job's times: what a client may ask for, where a step waits, when it must not start any more."""

from __future__ import annotations

import pytest

from dispatcher.core import timing
from dispatcher.core.topology import Names
from schemas import JobRequest
from schemas.job import MAX_MILLIS
from tests.unit.samples import make_work

NOW = 1_800_000_000_000  # 2027-01-15T08:00:00Z
NAMES = Names("p.")


@pytest.mark.parametrize(
    ("text", "ms"),
    [
        ("2027-01-15T08:00:00Z", NOW),
        ("2027-01-15t09:00:00+01:00", NOW),
        ("2027-01-15 03:00:00.250-05:00", NOW + 250),
        ("2027-01-15T08:00:00.0001z", NOW + 1),
        ("2027-01-15T07:59:60Z", NOW),
        ("1969-12-31T23:59:59Z", -1000),
        ("2027-01-15T08:00:00", None),
        ("2027-01-15T08:00Z", None),
        ("2027-02-30T08:00:00Z", None),
        ("2027-01-15T25:00:00Z", None),
        ("2027-01-15T08:00:00+0100", None),
        ("0000-01-01T00:00:00Z", None),
        ("20270115T080000Z", None),
        ("2027-01-15T08:00:00Z\n", None),
    ],
)
def test_a_time_is_read_as_rfc_3339_says(text: str, ms: int | None) -> None:
    """With its offset, rounded up to a millisecond; anything else is no time."""
    assert timing.parse_time(text) == ms


def test_when_a_job_is_due() -> None:
    """A delay counts from now, a time is itself, and the past means now."""
    assert timing.due(JobRequest(), NOW) is None
    assert timing.due(JobRequest(delay=0.0), NOW) is None
    assert timing.due(JobRequest(delay=1.0001), NOW) == NOW + 1001
    assert timing.due(JobRequest(run_at="2027-01-15T08:00:01Z"), NOW) == NOW + 1000
    assert timing.due(JobRequest(run_at="1969-01-15T08:00:01Z"), NOW) is None
    assert timing.due(JobRequest(run_at="2028-01-15T08:00:00Z"), NOW) == NOW + 31_536_000_000


@pytest.mark.parametrize("text", ["soon", "2028-01-15T08:00:01Z"])
def test_a_time_that_is_none_or_too_far_ahead(text: str) -> None:
    """The sentence says what it must be."""
    with pytest.raises(ValueError, match="must be"):
        timing.due(JobRequest(run_at=text), NOW)


def test_seconds_without_end_end_where_dates_do() -> None:
    """However long a client lets a job start, the time can be stored."""
    assert timing.after(NOW, 1e300) == MAX_MILLIS
    assert timing.after(NOW, 0.0005) == NOW + 1
    assert timing.after(NOW, None) is None


def test_where_a_step_waits() -> None:
    """Past and now: its work queue; up to a minute: the ladder; later: the scheduler."""
    assert timing.route(NAMES, "bulk", "low", None, NOW) == ("p.work.v1", "bulk.low", None)
    assert timing.route(NAMES, "bulk", "low", NOW, NOW) == ("p.work.v1", "bulk.low", None)
    exchange, key, stay = timing.route(NAMES, "bulk", "low", NOW + 60_000, NOW)
    assert (exchange, key.startswith("bulk.low."), stay is not None) == ("p.delay.v1", True, True)
    assert timing.route(NAMES, "bulk", "low", NOW + 60_001, NOW) == ("", "p.scheduled.v1", None)


@pytest.mark.parametrize(
    ("due_at", "expires_at", "expired"),
    [
        (None, None, False),
        (None, NOW + 1, False),
        (None, NOW, True),
        (NOW + 5, NOW + 6, False),
        (NOW + 5, NOW + 5, True),
        (NOW - 5, NOW + 1, False),
    ],
)
def test_a_step_must_not_start_from_its_expiry_on(due_at: int | None, expires_at: int | None, expired: bool) -> None:
    """Nor does one that will be due only then."""
    assert timing.has_expired(make_work(due_at=due_at, expires_at=expires_at), NOW) is expired
