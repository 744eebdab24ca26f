"""Hypothesis for the unit tests: no deadline (machines are busy), few examples, nothing kept between runs."""

from __future__ import annotations

from hypothesis import HealthCheck, settings

settings.register_profile(
    "unit", deadline=None, max_examples=40, database=None, suppress_health_check=[HealthCheck.too_slow]
)
settings.load_profile("unit")
