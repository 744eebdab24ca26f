"""Is everything all right, and if not, where to look?"""

from __future__ import annotations

from dev.dashboards.model import Dashboard, Panel, Query, Row, above
from dev.dashboards.promql import depth, most, one, or_zero, process, quantile, rate, share
from dev.dashboards.variables import INSTALLATION

ALERTS = 'ALERTS{alertname=~"Dispatcher.*"}'
BAD = 'outcome=~"failed|timed_out|crashed"'
EMPTY = 'queue=~"unrouted|stray.v1|unrecorded.v1|intake-dead.v1"'
CONSUMED = 'queue=~"intake.v1|history.v1|work.v1.*"'


def _burning(recorded: str, window: str, by: str = "") -> str:
    """What was spent of a budget in a window, as a multiple of what may be."""
    spent = f'{recorded}:ratio_rate{window}{{namespace=~"$namespace"}}'
    return most(f"{spent} / on ({by}) group_left () {recorded}:budget", by)


_NOW = Row("Now", [
    Panel(
        title="Alerts",
        says="Alerts of ours that fire or are about to. Normal: 0. The table below names them; docs/alerts.md says "
        "for each what to do.",
        asks=[Query(or_zero(f"count({ALERTS})"), "alerts")],
        kind="stat", width=4, height=4, steps=above(1), decimals=0,
    ),
    Panel(
        title="Accepted",
        says="Jobs that intake accepted, a second: the load. Normal: what you are used to at this hour. None for long: "
        "look whether the applications publish, and whether intake runs.",
        asks=[Query(rate("dispatcher_jobs_accepted_total"), "accepted")],
        kind="stat", unit="suffix: /s", width=4, height=4, decimals=1, to="apps",
    ),
    Panel(
        title="Waiting",
        says="Jobs in work queues that no worker holds. Normal: near 0, or falling. It grows: run more workers, or "
        "look for what keeps them busy.",
        asks=[Query(depth("dispatcher_work_ready", "lane, priority"), "waiting")],
        kind="stat", width=4, height=4, to="lanes",
    ),
    Panel(
        title="Oldest waiting job",
        says="How long the first of the queued jobs has waited. Normal: seconds. It grows when anything on the way "
        "stands still: look first which lane it is.",
        asks=[Query(most(one("dispatcher_oldest_job_age_seconds")), "age")],
        kind="stat", unit="s", width=4, height=4, steps=above(60, 600), to="lanes",
    ),
    Panel(
        title="Executions that fail",
        says="Share of executions that failed, ran out of time or crashed. Normal: what you are used to, since retries "
        "mend most. A jump: something that handlers need is away, or a release is bad; look which type.",
        asks=[Query(share(rate("dispatcher_attempts_total", "", BAD), rate("dispatcher_attempts_total")), "share")],
        kind="stat", unit="percentunit", width=4, height=4, steps=above(0.05, 0.2), most=1, decimals=1, to="types",
    ),
    Panel(
        title="Parked",
        says="Messages of jobs that gave up, kept for replay. Normal: does not grow. `dispatcher dead list` shows them "
        "by kind of error; replay or drop them.",
        asks=[Query(depth("dispatcher_queue_ready", "queue", "", 'queue=~"parked.v1.*"'), "parked")],
        kind="stat", width=4, height=4, steps=above(1, 1000), to="retries",
    ),
    Panel(
        title="Processes",
        says="Processes of ours that Prometheus sees. Normal: as many as you run. A fall: one has ended, or is not "
        "scraped any more.",
        asks=[Query(f"count({one('dispatcher_build_info')})", "processes")],
        kind="stat", width=4, height=4, decimals=0,
    ),
    Panel(
        title="Checks that fail",
        says="Checks of /readyz that are not fine, over all processes. Normal: 0. Else a process has no broker, no "
        "database or no consumer: the table of processes says which.",
        asks=[Query(or_zero(f"count({one('dispatcher_ready')} == 0)"), "failing")],
        kind="stat", width=4, height=4, steps=above(1), decimals=0,
    ),
    Panel(
        title="Queues without a consumer",
        says="Of intake.v1, history.v1 and the work queues, those that nobody consumes. Normal: 0. Else a service, or "
        "the workers of a lane, are missing: jobs wait there.",
        asks=[Query(or_zero(f"count({most(one('dispatcher_queue_consumers', CONSUMED), 'queue')} == 0)"), "queues")],
        kind="stat", width=4, height=4, steps=above(1), decimals=0, to="broker",
    ),
    Panel(
        title="Refused",
        says="Messages that intake refused, a second. Normal: hardly any. A jump: an application changed. `dispatcher "
        "jobs list --state rejected` shows the latest whose key was good.",
        asks=[Query(rate("dispatcher_jobs_refused_total"), "refused")],
        kind="stat", unit="suffix: /s", width=4, height=4, steps=above(1, 50), decimals=1, to="apps",
    ),
    Panel(
        title="History behind",
        says="99% of the writes recorded events that were younger than this. Normal: below some seconds. It grows: "
        "MongoDB is slow, or more recorders are needed. Jobs go on meanwhile.",
        asks=[Query(quantile(0.99, "dispatcher_event_lag_seconds"), "p99")],
        kind="stat", unit="s", width=4, height=4, steps=above(10, 120), to="recorder",
    ),
    Panel(
        title="In queues that stay empty",
        says="Messages in unrouted, stray.v1, unrecorded.v1 and intake-dead.v1. Normal: 0. Each is a message that "
        "nothing knew what to do with; docs/troubleshooting.md names the command for each queue.",
        asks=[Query(depth("dispatcher_queue_ready", "queue", "", EMPTY), "messages")],
        kind="stat", width=4, height=4, steps=above(1), decimals=0, to="broker",
    ),
])  # fmt: skip

_FLOW = Row("Flow", [
    Panel(
        title="Jobs in and out",
        says="What is accepted, what begins and what ends, a second. Normal: the three lie on each other. Accepted "
        "above the others: jobs queue up. Begun above ended for good: many retries.",
        asks=[
            Query(rate("dispatcher_jobs_accepted_total"), "accepted"),
            Query(rate("dispatcher_starts_total"), "executions begun"),
            Query(rate("dispatcher_jobs_final_total"), "ended for good"),
        ],
        unit="suffix: /s", width=12, to="lanes",
    ),
    Panel(
        title="How jobs end",
        says="Jobs that came to a final state, a second. Normal: nearly all succeed. `failed` and `timed_out` are "
        "those whose retries are spent; their messages are parked.",
        asks=[Query(rate("dispatcher_jobs_final_total", "state"), "{{state}}")],
        unit="suffix: /s", width=12, stacked=True, to="retries",
    ),
    Panel(
        title="Waiting jobs",
        says="Jobs in work queues that no worker holds, by lane. Normal: near 0; after a burst a peak that falls. A "
        "lane that only rises has too few workers.",
        asks=[Query(depth("dispatcher_work_ready", "lane, priority", "lane"), "{{lane}}")],
        stacked=True, to="lanes",
    ),
    Panel(
        title="Oldest waiting job",
        says="How long the first queued job of each lane has waited. Normal: seconds, or the length of the backlog. "
        "A straight rise: nobody works on that lane.",
        asks=[Query(most(one("dispatcher_oldest_job_age_seconds"), "lane"), "{{lane}}")],
        unit="s", steps=above(60, 600), to="lanes",
    ),
    Panel(
        title="Wait until start",
        says="From acceptance, or the time for which a job waited, to its start. Normal: milliseconds while workers "
        "are free. All three rise: more workers; p99 alone: low priorities wait.",
        asks=[
            Query(quantile(0.5, "dispatcher_job_wait_seconds"), "p50"),
            Query(quantile(0.95, "dispatcher_job_wait_seconds"), "p95"),
            Query(quantile(0.99, "dispatcher_job_wait_seconds"), "p99"),
        ],
        unit="s", to="lanes",
    ),
])  # fmt: skip

_TROUBLE = Row("Trouble", [
    Panel(
        title="Executions that fail",
        says="Executions that failed, ran out of time or crashed, and retries, a second. Normal: low and level. "
        "`crashed` is a handler that kills its process: `dispatcher jobs list --state failed`.",
        asks=[
            Query(rate("dispatcher_attempts_total", "outcome", BAD), "{{outcome}}"),
            Query(rate("dispatcher_retries_total"), "to be tried again"),
        ],
        unit="suffix: /s", to="retries",
    ),
    Panel(
        title="Refused messages",
        says="What intake refused, a second, by code; docs/refusals.md explains each. Normal: hardly any. "
        "`unknown_key`, `malformed_key`: somebody tries keys; the others: an application sends what does not fit.",
        asks=[Query(f"{rate('dispatcher_jobs_refused_total', 'code')} > 0", "{{code}}")],
        unit="suffix: /s", stacked=True, to="apps",
    ),
    Panel(
        title="Alerts",
        says="Alerts of ours that fire (firing) or whose condition holds, but not for long enough yet (pending). "
        "Normal: none. docs/alerts.md has a page for each: what it means, what to do.",
        asks=[Query(f"max by (alertname, severity, alertstate) ({ALERTS})", "Now")],
        kind="table", columns={"alertname": "Alert", "severity": "Severity", "alertstate": "State"},
    ),
])  # fmt: skip

_OBJECTIVES = Row("Objectives", [
    Panel(
        title="Late starts: how fast the budget goes",
        says="Starts later than the objective of their class allows (docs/alerts.md), as a multiple of what would use "
        "up the budget in 30 days exactly. Normal: below 1. Above 14.4 over an hour, or 6 over six, an alert wakes "
        "somebody: look which lane waits. From the recording rules.",
        asks=[
            Query(_burning("class:dispatcher_late_starts", "1h", "class"), "{{class}}, 1 h"),
            Query(_burning("class:dispatcher_late_starts", "6h", "class"), "{{class}}, 6 h"),
        ],
        unit="suffix: times", width=12, steps=above(1, 6), to="lanes",
    ),
    Panel(
        title="Faults of ours: how fast the budget goes",
        says="Jobs that end badly by no fault of their application or handler (expired, no handler, intake failed), in "
        "the same way. Normal: below 1. Above: look for workers that are missing or too few. From the recording rules.",
        asks=[
            Query(_burning(":dispatcher_platform_faults", "1h"), "1 h"),
            Query(_burning(":dispatcher_platform_faults", "6h"), "6 h"),
        ],
        unit="suffix: times", width=12, steps=above(1, 6), to="lanes",
    ),
])  # fmt: skip

_PROCESSES = Row("Processes", [
    Panel(
        title="Processes",
        says="Each process: how long it runs, processor (1: one core), memory, open files, and the checks of its "
        "/readyz that fail. Normal: 0 failing, memory level. A short run time after none of your doing: it was killed.",
        asks=[
            Query(process(f"time() - {one('process_start_time_seconds')}"), "Runs for", "s"),
            Query(process(f"rate({one('process_cpu_seconds_total')}[5m])"), "Processor", "percentunit"),
            Query(process(one("process_resident_memory_bytes")), "Memory", "bytes"),
            Query(process(one("process_open_fds")), "Open files"),
            Query(f"sum by (instance) (1 - {one('dispatcher_ready')})", "Failing checks"),
        ],
        kind="table", width=24, columns={"instance": "Process"},
    ),
])  # fmt: skip

OVERVIEW = Dashboard(
    name="overview",
    title="Overview",
    says="Is everything all right, and if not, where to look?",
    variables=INSTALLATION,
    rows=[_NOW, _FLOW, _TROUBLE, _OBJECTIVES, _PROCESSES],
)
