"""What services tell metrics: one call for what happens once, and counters that are there before they rise."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Literal

from dispatcher.core.labels import BoundedLabels
from dispatcher.edges import metrics
from dispatcher.edges.metrics import Service, of
from schemas import PRIORITIES, JobState, Outcome

#: Labels of job types and applications in this process.
types = BoundedLabels()
apps = BoundedLabels()

#: The final states to which a worker brings jobs.
_WORKERS_ENDS = (JobState.SUCCEEDED, JobState.FAILED, JobState.TIMED_OUT, JobState.CANCELLED, JobState.EXPIRED)


def intake_begins(lanes: Iterable[str], codes: Iterable[str]) -> None:
    """Let intake's counters begin at 0: Prometheus sees a rise only of what it saw before."""
    for lane in lanes:
        of(metrics.final, lane, JobState.DUPLICATE)
        for priority in PRIORITIES:
            of(metrics.accepted, lane, priority)
    for code in codes:
        of(metrics.refused, code)
    for found in ("made", "resent", "duplicate", "open", "away"):
        of(metrics.claims, found)
    for reason in ("size", "time", "bytes", "pressure"):
        of(metrics.group_flushes, reason)
    for result in ("hit", "miss", "unknown", "away"):
        of(metrics.key_lookups, result)


def know_apps(names: Iterable[str]) -> None:
    """Let the counters of applications that have keys begin at 0."""
    for app in map(apps.of, names):
        of(metrics.app_accepted, app)
        of(metrics.app_refused, app)
        of(metrics.app_repeated, app, "resent")
        of(metrics.app_repeated, app, "duplicate")


def worker_begins(lanes: Iterable[str]) -> None:
    """Let a worker's counters begin at 0, for the lanes that it serves."""
    for lane in lanes:
        for metric in (metrics.retries, metrics.suspects, metrics.given_back, metrics.breached, metrics.unhandled):
            of(metric, lane)
        for priority in PRIORITIES:
            of(metrics.starts, lane, priority)
            of(metrics.wait_seconds, lane, priority)
        for outcome in Outcome:
            of(metrics.attempts, lane, outcome)
        for state in _WORKERS_ENDS:
            of(metrics.final, lane, state)


def admitted(app: str, lane: str, priority: str) -> None:
    """A job of an application was accepted."""
    of(metrics.accepted, lane, priority).inc()
    of(metrics.app_accepted, apps.of(app)).inc()


def repeated(app: str, found: Literal["resent", "duplicate"]) -> None:
    """A message of an application made no job of its own to run."""
    of(metrics.app_repeated, apps.of(app), found).inc()


def turned_away(app: str | None, code: str) -> None:
    """A message was refused; without a good key it is no application's."""
    of(metrics.refused, code).inc()
    if app is not None:
        of(metrics.app_refused, apps.of(app)).inc()


def began(lane: str, priority: str, job_type: str, waited: float) -> None:
    """An execution began after so many seconds of waiting."""
    of(metrics.starts, lane, priority).inc()
    of(metrics.wait_seconds, lane, priority).observe(waited)
    of(metrics.type_wait_seconds, types.of(job_type)).observe(waited)


def ended(lane: str, job_type: str, outcome: str, seconds: float) -> None:
    """An execution ended after so many seconds."""
    of(metrics.attempts, lane, outcome).inc()
    of(metrics.run_seconds, lane).observe(seconds)
    of(metrics.type_run_seconds, types.of(job_type)).observe(seconds)
    of(metrics.type_attempts, types.of(job_type), outcome).inc()


def show_ready(role: str, checks: Callable[[], Mapping[str, bool]]) -> None:
    """Let a service's checks be shown, as they are whenever the page is asked for; they keep their names."""
    for check in checks():
        metrics.ready.labels(role, check).set_function(lambda check=check: checks()[check])  # type: ignore[misc]


class PublishMeter:
    """What a publisher tells of its batches and its connection."""

    def __init__(self, role: Service) -> None:
        self._confirm = metrics.confirm_seconds.labels(role)
        self._again = metrics.published_again.labels(role)
        self._blocked = metrics.publishing_blocked.labels(role)

    def blocked(self, change: int) -> None:
        """The broker began (1) or ceased (-1) to block the connection."""
        self._blocked.inc(change)

    def answered(self, seconds: float) -> None:
        """The broker answered a whole batch."""
        self._confirm.observe(seconds)

    def again(self, messages: int) -> None:
        """So many messages are to be published once more."""
        self._again.inc(messages)
