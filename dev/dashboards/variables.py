"""The choices at the top of the dashboards; each is the values of a label of a metric that is always there."""

from __future__ import annotations

from dev.dashboards.model import Variable
from dev.dashboards.promql import one


def _values(label: str, series: str) -> str:
    return f"label_values({series}, {label})"


#: One Prometheus may scrape several installations: a namespace each, in Kubernetes, else jobs of Prometheus' own.
INSTALLATION = (
    Variable(
        "namespace",
        "Namespace",
        _values("namespace", "dispatcher_build_info"),
        "Where an installation runs; outside of Kubernetes there is none, and All is right.",
    ),
    Variable(
        "job",
        "Scrape job",
        _values("job", 'dispatcher_build_info{namespace=~"$namespace"}'),
        "What Prometheus calls the services that it scrapes.",
    ),
)
LANE = Variable("lane", "Lane", _values("lane", one("dispatcher_work_ready")), "Work queue families.")
PRIORITY = Variable(
    "priority", "Priority", _values("priority", one("dispatcher_work_ready")), "Of the five, those to be shown."
)
TYPE = Variable(
    "type",
    "Job type",
    _values("type", one("dispatcher_type_run_seconds_count")),
    "Types that ran; a worker counts those beyond its first 200 as `other`.",
)
APP = Variable(
    "app",
    "Application",
    _values("app", one("dispatcher_app_accepted_total")),
    "Applications that have keys; an intake counts those beyond its first 200 as `other`.",
)
INSTANCE = Variable("instance", "Process", _values("instance", one("dispatcher_build_info")), "Address of a process.")
NODE = Variable("node", "RabbitMQ node", _values("instance", "rabbitmq_identity_info"), "Nodes that are scraped.")
PREFIX = Variable(
    "prefix",
    "Prefix",
    _values("queue", 'rabbitmq_detailed_queue_consumers{queue=~".*intake.v1"}'),
    "What an installation puts before its queues' names (amqp.prefix); where there is none, All is right.",
    regex="/(.*)intake\\.v1/",
)
