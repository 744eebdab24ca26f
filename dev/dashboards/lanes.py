"""What waits in which lane, at which priority, how long, and are there enough workers?"""

from __future__ import annotations

from dev.dashboards.model import Dashboard, Panel, Query, Row, above
from dev.dashboards.promql import buckets, depth, most, of_role, one, quantile, rate
from dev.dashboards.variables import INSTALLATION, LANE, PRIORITY

IN_LANE = 'lane=~"$lane"'
AT_PRIORITY = 'priority=~"$priority"'
HERE = (IN_LANE, AT_PRIORITY)
ITS_QUEUES = 'queue=~"work.v1.($lane).($priority)"'
READY = most(one("dispatcher_work_ready", *HERE), "lane, priority")

_WAITING = Row("What waits", [
    Panel(
        title="Waiting, by lane",
        says="Jobs in work queues that no worker holds. Normal: near 0; after a burst a peak that falls. A lane that "
        "only rises has too few workers.",
        asks=[Query(depth("dispatcher_work_ready", "lane, priority", "lane", *HERE), "{{lane}}")],
        stacked=True,
    ),
    Panel(
        title="Waiting, by priority",
        says="The same by priority. Normal: what waits is of low priority. High ones wait: the lane is full of them; "
        "docs/priorities.md says what is promised.",
        asks=[Query(depth("dispatcher_work_ready", "lane, priority", "priority", *HERE), "{{priority}}")],
        stacked=True,
    ),
    Panel(
        title="Oldest waiting job",
        says="How long the first queued job of each queue has waited, as history says. Normal: seconds, or the length "
        "of the backlog. A straight rise: nobody works on that queue.",
        asks=[Query(most(one("dispatcher_oldest_job_age_seconds", *HERE), "lane, priority"), "{{lane}} {{priority}}")],
        unit="s", steps=above(60, 600),
    ),
    Panel(
        title="Arriving faster than ending",
        says="Jobs accepted less jobs that ended for good, a second, by lane. Normal: around 0. Above 0 for long: "
        "the lane falls behind by so many jobs a second. Below: it catches up.",
        asks=[Query(f"{rate('dispatcher_jobs_accepted_total', 'lane', IN_LANE)} - "
                    f"{rate('dispatcher_jobs_final_total', 'lane', IN_LANE)}", "{{lane}}")],
        unit="suffix: /s", least=None,
    ),
    Panel(
        title="Time until empty",
        says="What waits, divided by the rate at which the lane starts jobs now: how long the last one will wait if "
        "nothing is added. Normal: seconds. Longer than its users bear: more workers.",
        asks=[Query(f"{depth('dispatcher_work_ready', 'lane, priority', 'lane', *HERE)} / "
                    f"({rate('dispatcher_starts_total', 'lane', *HERE)} > 0)", "{{lane}}")],
        unit="s", steps=above(300, 3600),
    ),
    Panel(
        title="Overdue",
        says="How long ago the first of the jobs that wait for a time (`scheduled`) or for a retry (`retrying`) was "
        "due. Normal: 0. It grows: no scheduler runs, or the delay ladder is stuck.",
        asks=[Query(most(one("dispatcher_overdue_seconds", IN_LANE), "lane, state"), "{{lane}} {{state}}")],
        unit="s", steps=above(30, 300), to="retries",
    ),
])  # fmt: skip

_STARTS = Row("How they are started", [
    Panel(
        title="Started, by priority",
        says="Executions that began, a second. Normal: all that arrive. With a backlog the highest priority takes "
        "nine of ten starts, and the tenth goes to the longest waiting lower job.",
        asks=[Query(rate("dispatcher_starts_total", "priority", *HERE), "{{priority}}")],
        unit="suffix: /s", width=12, stacked=True,
    ),
    Panel(
        title="Started, by lane",
        says="Executions that began, a second. Normal: what is accepted there. A lane at 0 with jobs waiting has no "
        "workers.",
        asks=[Query(rate("dispatcher_starts_total", "lane", *HERE), "{{lane}}")],
        unit="suffix: /s", width=12, stacked=True,
    ),
    Panel(
        title="Wait until start, by priority",
        says="99% of the jobs started within this time from acceptance (or from the time for which they waited). "
        "Normal: high priorities stay low when others rise. They rise too: more workers are needed.",
        asks=[Query(quantile(0.99, "dispatcher_job_wait_seconds", "priority", *HERE), "{{priority}} p99")],
        unit="s", width=12,
    ),
    Panel(
        title="Wait until start",
        says="How many jobs waited how long. Normal: one dark band at milliseconds. A second band higher up: some of "
        "the jobs queue up, by lane, by priority or behind long ones.",
        asks=[Query(buckets("dispatcher_job_wait_seconds", *HERE), "{{le}}")],
        kind="heatmap", unit="s", width=12,
    ),
])  # fmt: skip

_RUNS = Row("How they run", [
    Panel(
        title="Run time, by lane",
        says="Half of the executions, and 95% of them, took no longer than this. Normal: level. Above a minute: give "
        "these types a lane of their own, so that short ones do not wait behind them.",
        asks=[
            Query(quantile(0.5, "dispatcher_job_run_seconds", "lane", IN_LANE), "{{lane}} p50"),
            Query(quantile(0.95, "dispatcher_job_run_seconds", "lane", IN_LANE), "{{lane}} p95"),
        ],
        unit="s", width=12, to="types",
    ),
    Panel(
        title="Run time",
        says="How many executions took how long. Normal: bands that stay where they are. A band that climbs: a type "
        "grows slow. A band at a timeout: handlers hang.",
        asks=[Query(buckets("dispatcher_job_run_seconds", IN_LANE), "{{le}}")],
        kind="heatmap", unit="s", width=12, to="types",
    ),
    Panel(
        title="Finished after the deadline",
        says="Jobs that finished after the deadline that their client gave, a second. Normal: 0. `dispatcher jobs list "
        "--breached` names them; more workers, or a higher priority.",
        asks=[Query(rate("dispatcher_deadlines_breached_total", "lane", IN_LANE), "{{lane}}")],
        unit="suffix: /s",
    ),
    Panel(
        title="No handler",
        says="Jobs that ended failed because no worker of their lane has a handler for their type, a second. Normal: "
        "0. Else a worker is missing, or serves the wrong lane.",
        asks=[Query(rate("dispatcher_jobs_unhandled_total", "lane", IN_LANE), "{{lane}}")],
        unit="suffix: /s",
    ),
    Panel(
        title="Given back",
        says="Jobs held ready that a worker gave back for others, because those that it runs take long. Normal: 0. A "
        "steady rate: long and short jobs share a lane; part them.",
        asks=[Query(rate("dispatcher_worker_given_back_total", "lane", IN_LANE), "{{lane}}")],
        unit="suffix: /s",
    ),
])  # fmt: skip

_WORKERS = Row("Workers", [
    Panel(
        title="Running, by worker",
        says="Handlers that run now, by process. Normal: below worker.concurrency (100). At it: the worker is full, "
        "and what waits needs more workers.",
        asks=[Query(of_role("worker", one("dispatcher_worker_running")), "{{instance}}")],
    ),
    Panel(
        title="Held ready, by worker",
        says="Jobs that a worker holds besides those that run. Normal: near 0, and up to worker.read_ahead for each "
        "queue under load. Much here while others are idle: lower worker.read_ahead.",
        asks=[Query(of_role("worker", one("dispatcher_worker_held")), "{{instance}}")],
    ),
    Panel(
        title="Consumers of each work queue",
        says="Workers that consume each queue, now. Normal: as many as run for that lane. 0: nobody works there.",
        asks=[Query(most(one("dispatcher_queue_consumers", ITS_QUEUES), "queue"), "{{queue}}")],
        kind="bargauge", steps=((None, "red"), (1, "green")),
    ),
])  # fmt: skip

_GROUPS = Row("Groups", [
    Panel(
        title="Groups being gathered",
        says="Groups that are open, and members that wait in them. Normal: level. Members near intake.group_members "
        "in a partition: groups are flushed early.",
        asks=[
            Query(most(f"sum({one('dispatcher_groups_open')})"), "groups"),
            Query(most(f"sum({one('dispatcher_group_members_held')})"), "members"),
        ],
        width=6,
    ),
    Panel(
        title="Oldest group",
        says="How long the oldest group has been open. Normal: below the largest max_wait. Above: nothing can be "
        "published; look at the broker.",
        asks=[Query(most(one("dispatcher_group_oldest_age_seconds")), "oldest")],
        unit="s", width=6, to="broker",
    ),
    Panel(
        title="Bytes held",
        says="Bytes of the members that wait. Normal: far below intake.group_bytes (64 MiB); near it the largest "
        "groups are flushed early.",
        asks=[Query(f"sum({one('dispatcher_group_held_bytes')})", "bytes")],
        unit="bytes", width=6,
    ),
    Panel(
        title="Flushed, and why",
        says="Batches a second: complete (size), max_wait over (time), 4 MiB (bytes), too much held (pressure). "
        "Normal: size and time. Many by pressure: raise intake.group_members.",
        asks=[Query(rate("dispatcher_group_flushes_total", "reason"), "{{reason}}")],
        unit="suffix: /s", width=6, stacked=True,
    ),
    Panel(
        title="Size of batches",
        says="Half of the batches, and 95% of them, had no more members than this. Normal: near max_size. Small ones: "
        "max_wait is short for the rate at which members come.",
        asks=[
            Query(quantile(0.5, "dispatcher_group_size"), "p50"),
            Query(quantile(0.95, "dispatcher_group_size"), "p95"),
        ],
        width=12,
    ),
    Panel(
        title="Long delays released",
        says="Jobs with long delays (run_at, delay) that a scheduler gave to the delay ladder, a second. Normal: what "
        "was asked for. 0 while some are overdue: no scheduler runs.",
        asks=[Query(rate("dispatcher_scheduled_released_total"), "released")],
        unit="suffix: /s", width=12,
    ),
])  # fmt: skip

LANES = Dashboard(
    name="lanes",
    title="Lanes and priorities",
    says="What waits in which lane, at which priority, how long, and are there enough workers?",
    variables=(*INSTALLATION, LANE, PRIORITY),
    rows=[_WAITING, _STARTS, _RUNS, _WORKERS, _GROUPS],
)
