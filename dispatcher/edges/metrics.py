"""Every metric by name, type, unit and help; `ALL` lists them for docs/metrics.md, dashboards and tests.

Labels hold what is bounded: lanes, priorities, codes, outcomes, levels and queues of ours, and at most 200 job types
and as many applications. No label is called ``service``, ``job``, ``instance``, ``pod`` or ``namespace``: Kubernetes'
monitors give each target labels of these names, and Prometheus renames ours where they clash.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Literal, TypeVar

from prometheus_client import (
    CONTENT_TYPE_LATEST,
    Counter,
    Gauge,
    Histogram,
    disable_created_metrics,
    generate_latest,
)

Metric = TypeVar("Metric", Counter, Gauge, Histogram)
Service = Literal["intake", "worker", "recorder", "scheduler"]

_SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 120, 300, 600, 1800)
_EVENTS = (1, 3, 10, 30, 100, 300, 1000, 4000)


@dataclass(frozen=True, slots=True)
class Described:
    """What a metric is; ``services`` are those that measure it (each shows all that have no labels, at 0)."""

    name: str
    kind: Literal["counter", "gauge", "histogram"]
    unit: str
    labels: tuple[str, ...]
    services: tuple[Service, ...]
    help: str


#: Every metric of ours, in the order of docs/metrics.md.
ALL: list[Described] = []

# a time of birth for each series would double the page
disable_created_metrics()  # type: ignore[no-untyped-call]


def _counter(name: str, text: str, unit: str, services: Sequence[Service], labels: Sequence[str] = ()) -> Counter:
    ALL.append(Described(name, "counter", unit, tuple(labels), tuple(services), text))
    return Counter(name, text, labels)


def _gauge(name: str, text: str, unit: str, services: Sequence[Service], labels: Sequence[str] = ()) -> Gauge:
    ALL.append(Described(name, "gauge", unit, tuple(labels), tuple(services), text))
    return Gauge(name, text, labels)


def _histogram(
    name: str,
    text: str,
    unit: str,
    services: Sequence[Service],
    labels: Sequence[str] = (),
    buckets: Sequence[float] = _SECONDS,
) -> Histogram:
    ALL.append(Described(name, "histogram", unit, tuple(labels), tuple(services), text))
    return Histogram(name, text, labels, buckets=buckets)


# every service
build_info = _gauge(
    "dispatcher_build_info",
    "1, with the version that runs",
    "—",
    ["intake", "worker", "recorder", "scheduler"],
    ["version"],
)
ready = _gauge(
    "dispatcher_ready",
    "Whether a check of /readyz is fine (1) or not (0), for each service of the process",
    "—",
    ["intake", "worker", "recorder", "scheduler"],
    ["role", "check"],
)

# intake
accepted = _counter(
    "dispatcher_jobs_accepted_total", "Jobs that intake accepted", "jobs", ["intake"], ["lane", "priority"]
)
refused = _counter(
    "dispatcher_jobs_refused_total", "Messages that intake refused, by code", "messages", ["intake"], ["code"]
)
app_accepted = _counter(
    "dispatcher_app_accepted_total", "Jobs that intake accepted, by application", "jobs", ["intake"], ["app"]
)
app_refused = _counter(
    "dispatcher_app_refused_total",
    "Messages with a good key that intake refused, by application",
    "messages",
    ["intake"],
    ["app"],
)
app_repeated = _counter(
    "dispatcher_app_repeated_total",
    "Messages that made no job of their own to run, by application and what they were: resent (the id is another "
    "job's), duplicate (the unique key is)",
    "messages",
    ["intake"],
    ["app", "found"],
)
deferred = _counter(
    "dispatcher_intake_deferred_total",
    "Messages that intake put off because MongoDB could not be asked for their API key",
    "messages",
    ["intake"],
)
claims = _counter(
    "dispatcher_intake_claims_total",
    "Jobs with an id or a unique key, by what came of that: made (it is theirs), resent (the id is another job's), "
    "duplicate (the key is another job's), open (put off: another message is at it), away (put off: MongoDB is away)",
    "jobs",
    ["intake"],
    ["found"],
)
groups_open = _gauge(
    "dispatcher_groups_open", "Groups that are being gathered by this dispatcher", "groups", ["intake"]
)
group_age = _gauge(
    "dispatcher_group_oldest_age_seconds", "How long the oldest of them has been open", "seconds", ["intake"]
)
group_members = _gauge("dispatcher_group_members_held", "Members that wait in them", "jobs", ["intake"])
group_bytes = _gauge("dispatcher_group_held_bytes", "Bytes of these members", "bytes", ["intake"])
group_flushes = _counter(
    "dispatcher_group_flushes_total",
    "Groups that were flushed, by reason: size (complete), time (max_wait is over), bytes (4 MiB), pressure (too many "
    "members, or bytes, were held)",
    "batches",
    ["intake"],
    ["reason"],
)
group_sizes = _histogram(
    "dispatcher_group_size",
    "Members of a batch",
    "jobs",
    ["intake"],
    buckets=(1, 2, 5, 10, 20, 50, 100, 200, 500, 1000),
)
intake_suspects = _counter(
    "dispatcher_intake_suspects_total",
    "Messages judged in a child process because the intakes that held them died again and again",
    "messages",
    ["intake"],
)
breached = _counter(
    "dispatcher_deadlines_breached_total",
    "Jobs that a worker finished after their deadline",
    "jobs",
    ["worker"],
    ["lane"],
)
released = _counter(
    "dispatcher_scheduled_released_total", "Jobs with long delays that a scheduler released", "jobs", ["scheduler"]
)
key_age = _gauge(
    "dispatcher_key_cache_age_seconds", "Time since the API keys were last read from MongoDB", "seconds", ["intake"]
)
key_size = _gauge("dispatcher_key_cache_keys", "API keys in memory", "keys", ["intake"])
key_lookups = _counter(
    "dispatcher_key_cache_lookups_total",
    "Keys looked for in memory, by what was found: hit, miss (MongoDB is asked), unknown (it said there is none), "
    "away (nobody can say)",
    "look-ups",
    ["intake"],
    ["result"],
)
keys_expiring = _gauge(
    "dispatcher_keys_expiring",
    "Active API keys that end within keys.warn_days and have no successor",
    "keys",
    ["intake"],
)
key_first_expiry = _gauge(
    "dispatcher_key_first_expiry_seconds",
    "Time until the first active API key without a successor ends; +Inf: none does",
    "seconds",
    ["intake"],
)
app_key_expiry = _gauge(
    "dispatcher_app_key_expiry_seconds",
    "Time until an application's first active API key without a successor ends; no value where none does",
    "seconds",
    ["intake"],
    ["app"],
)
key_first_expiry.set(float("inf"))  # where no intake runs too: 0 would be an alarm

# worker
starts = _counter("dispatcher_starts_total", "Executions that began", "executions", ["worker"], ["lane", "priority"])
wait_seconds = _histogram(
    "dispatcher_job_wait_seconds", "Acceptance (or due time) to start", "seconds", ["worker"], ["lane", "priority"]
)
type_wait_seconds = _histogram(
    "dispatcher_type_wait_seconds", "Acceptance (or due time) to start, by type", "seconds", ["worker"], ["type"]
)
run_seconds = _histogram("dispatcher_job_run_seconds", "Length of an execution", "seconds", ["worker"], ["lane"])
type_run_seconds = _histogram(
    "dispatcher_type_run_seconds", "Length of an execution, by type", "seconds", ["worker"], ["type"]
)
attempts = _counter(
    "dispatcher_attempts_total", "Executions that ended, by outcome", "executions", ["worker"], ["lane", "outcome"]
)
type_attempts = _counter(
    "dispatcher_type_attempts_total",
    "Executions that ended, by type and outcome",
    "executions",
    ["worker"],
    ["type", "outcome"],
)
retries = _counter(
    "dispatcher_retries_total", "Attempts that failed and will be tried again", "attempts", ["worker"], ["lane"]
)
final = _counter(
    "dispatcher_jobs_final_total", "Jobs that a worker brought to a final state", "jobs", ["worker"], ["lane", "state"]
)
stale = _counter(
    "dispatcher_stale_deliveries_total",
    "Deliveries dropped because their run is final, or their step settled, already",
    "messages",
    ["worker"],
)
unhandled = _counter(
    "dispatcher_jobs_unhandled_total",
    "Jobs that ended failed because no worker had a handler for their type",
    "jobs",
    ["worker"],
    ["lane"],
)
suspects = _counter(
    "dispatcher_suspects_total",
    "Steps set apart because the processes that held them died again and again",
    "messages",
    ["worker"],
    ["lane"],
)
given_back = _counter(
    "dispatcher_worker_given_back_total",
    "Jobs held ready that were given back for other workers",
    "jobs",
    ["worker"],
    ["lane"],
)
running = _gauge("dispatcher_worker_running", "Handlers running now", "jobs", ["worker"])
held = _gauge("dispatcher_worker_held", "Jobs held ready besides the running ones", "jobs", ["worker"])

threads_abandoned = _gauge(
    "dispatcher_threads_abandoned",
    "Threads whose handler ran out of time or was cancelled and that still run; each has been replaced",
    "threads",
    ["worker"],
)
tasks_abandoned = _gauge(
    "dispatcher_tasks_abandoned",
    "Async handlers that ran out of time or were cancelled and go on; their places are free",
    "tasks",
    ["worker"],
)

# recorder
recorded = _counter("dispatcher_events_recorded_total", "Events merged into job documents", "events", ["recorder"])
unrecorded = _counter(
    "dispatcher_events_unrecorded_total",
    "Events parked in unrecorded.v1 because they cannot be stored",
    "events",
    ["recorder"],
)
event_lag = _histogram(
    "dispatcher_event_lag_seconds",
    "From what an event tells of to its being recorded: the oldest of each write",
    "seconds",
    ["recorder"],
)
record_seconds = _histogram("dispatcher_record_seconds", "Length of one write of the recorder", "seconds", ["recorder"])
record_events = _histogram(
    "dispatcher_record_batch_events", "Events in one write of the recorder", "events", ["recorder"], buckets=_EVENTS
)

# every service that publishes
confirm_seconds = _histogram(
    "dispatcher_publish_confirm_seconds",
    "From handing a batch of messages to the connection to the broker's last answer",
    "seconds",
    ["intake", "worker", "recorder", "scheduler"],
    ["role"],
)
published_again = _counter(
    "dispatcher_publishes_again_total",
    "Messages published again because the broker refused them or did not answer",
    "messages",
    ["intake", "worker", "recorder", "scheduler"],
    ["role"],
)
publishing_blocked = _gauge(
    "dispatcher_publishing_blocked",
    "Connections that the broker lets publish nothing, because of an alarm of its own (memory, disk)",
    "connections",
    ["intake", "worker", "recorder", "scheduler"],
    ["role"],
)

# scheduler
rolled_up = _counter(
    "dispatcher_statistics_minutes_total", "Minutes of statistics put together", "minutes", ["scheduler"]
)
forgotten = _counter(
    "dispatcher_retention_deleted_total",
    "What was deleted for its age",
    "documents or messages",
    ["scheduler"],
    ["place"],
)
retention_passed = _gauge(
    "dispatcher_retention_passed_timestamp_seconds",
    "When the last pass of retention through history ended, or found that another scheduler makes it (at first: when "
    "this one started), in seconds since 1970",
    "seconds",
    ["scheduler"],
)
work_ready = _gauge(
    "dispatcher_work_ready",
    "Jobs in a work queue that no worker holds",
    "jobs",
    ["scheduler"],
    ["lane", "priority"],
)
oldest_age = _gauge(
    "dispatcher_oldest_job_age_seconds",
    "How long the first of the jobs in state queued has waited, as history says; no value while MongoDB is away",
    "seconds",
    ["scheduler"],
    ["lane", "priority"],
)
overdue = _gauge(
    "dispatcher_overdue_seconds",
    "How long ago the first of the jobs in state scheduled or retrying was due, as history says; 0: none is; no value "
    "while MongoDB is away",
    "seconds",
    ["scheduler"],
    ["lane", "state"],
)
ladder_ready = _gauge(
    "dispatcher_retries_waiting",
    "Retries, snoozes and deferrals in the delay ladder, by level (level L holds them for 2^L/8 seconds)",
    "messages",
    ["scheduler"],
    ["level"],
)
queue_ready = _gauge(
    "dispatcher_queue_ready",
    "Messages that nobody holds, in each queue that is neither a work queue nor of the ladder, without prefix",
    "messages",
    ["scheduler"],
    ["queue"],
)
queue_consumers = _gauge(
    "dispatcher_queue_consumers",
    "Consumers of each queue outside the ladder, without prefix",
    "consumers",
    ["scheduler"],
    ["queue"],
)
queues_missing = _gauge(
    "dispatcher_queues_missing", "Queues of the topology that the broker does not have", "queues", ["scheduler"]
)


@lru_cache(maxsize=4096)
def of(metric: Metric, *labels: str) -> Metric:
    """A metric's child for these label values, looked up once: the library does it anew each time."""
    return metric.labels(*labels)


def show(gauge: Gauge, values: Mapping[tuple[str, ...], float]) -> None:
    """Let a gauge with labels have these values and no others: what is not known any more must not look current."""
    gauge.clear()
    for labels, value in values.items():
        gauge.labels(*labels).set(value)


def render() -> tuple[bytes, str]:
    """The metrics page and its content type."""
    return generate_latest(), CONTENT_TYPE_LATEST
