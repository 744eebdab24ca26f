"""Every metric by name, unit and help. Labels hold lanes, priorities, codes and outcomes only, never client text."""

from __future__ import annotations

from functools import lru_cache
from typing import TypeVar

from prometheus_client import CONTENT_TYPE_LATEST, Counter, Gauge, Histogram, generate_latest

Metric = TypeVar("Metric", Counter, Gauge, Histogram)

_SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 300, 1800)

accepted = Counter("dispatcher_jobs_accepted_total", "Jobs that intake accepted", ["lane", "priority"])
refused = Counter("dispatcher_jobs_refused_total", "Messages that intake refused, by code", ["code"])
deferred = Counter(
    "dispatcher_intake_deferred_total",
    "Messages that intake put off because MongoDB could not be asked for their key",
)
intake_suspects = Counter(
    "dispatcher_intake_suspects_total",
    "Messages judged in a child process because the intakes that held them died again and again",
)
key_age = Gauge("dispatcher_key_cache_age_seconds", "Time since the API keys were last read from MongoDB")
attempts = Counter("dispatcher_attempts_total", "Executions that ended, by outcome", ["lane", "outcome"])
final = Counter("dispatcher_jobs_final_total", "Jobs that a worker brought to a final state", ["lane", "state"])
retries = Counter("dispatcher_retries_total", "Attempts that failed and will be tried again", ["lane"])
stale = Counter(
    "dispatcher_stale_deliveries_total",
    "Deliveries dropped because their run is final, or their step settled, already",
)
suspects = Counter(
    "dispatcher_suspects_total", "Steps set apart because the processes that held them died again and again", ["lane"]
)
running = Gauge("dispatcher_worker_running", "Handlers running now")
given_back = Counter(
    "dispatcher_worker_given_back_total", "Jobs held ready that were given back for other workers", ["lane"]
)
held = Gauge("dispatcher_worker_held", "Jobs held ready besides the running ones")
wait_seconds = Histogram(
    "dispatcher_job_wait_seconds", "Acceptance (or due time) to start", ["lane", "priority"], buckets=_SECONDS
)
run_seconds = Histogram("dispatcher_job_run_seconds", "Length of an execution", ["lane"], buckets=_SECONDS)
recorded = Counter("dispatcher_events_recorded_total", "Events merged into job documents")
unrecorded = Counter(
    "dispatcher_events_unrecorded_total", "Events parked in unrecorded.v1 because they cannot be stored"
)
record_seconds = Histogram("dispatcher_record_seconds", "Length of one write of the recorder", buckets=_SECONDS)
record_events = Histogram(
    "dispatcher_record_batch_events",
    "Events in one write of the recorder",
    buckets=(1, 3, 10, 30, 100, 300, 1000, 4000),
)
rolled_up = Counter("dispatcher_statistics_minutes_total", "Minutes of statistics put together")
republished = Gauge(
    "dispatcher_unknown_publishes", "Publishes sent again because their outcome was unknown", ["service"]
)


@lru_cache(maxsize=4096)
def of(metric: Metric, *labels: str) -> Metric:
    """A metric's child for these label values, looked up once: the library does it anew each time."""
    return metric.labels(*labels)


def render() -> tuple[bytes, str]:
    """The metrics page and its content type."""
    return generate_latest(), CONTENT_TYPE_LATEST
