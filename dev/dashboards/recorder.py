"""Does history keep up, how does MongoDB answer, and what do our processes need?"""

from __future__ import annotations

from dev.dashboards.model import Dashboard, Panel, Query, Row, above
from dev.dashboards.promql import buckets, most, one, process, quantile, rate, rate_of_role
from dev.dashboards.variables import INSTALLATION, INSTANCE

HERE = 'instance=~"$instance"'
DATABASE = 'check="database"'
OLDEST = 'generation="2"'
DAY = 86_400

_KEEPING_UP = Row("Does history keep up?", [
    Panel(
        title="Events waiting",
        says="Messages in history.v1 that no recorder holds. Normal: near 0. It grows: no recorder, a slow MongoDB, or "
        "too few recorders. Jobs go on; what `dispatcher jobs show` says is old.",
        asks=[Query(most(one("dispatcher_queue_ready", 'queue="history.v1"')), "history.v1")],
        steps=above(10_000, 100_000),
    ),
    Panel(
        title="History behind",
        says="From what an event tells of to its being recorded: the oldest event of each write. Normal: below some "
        "seconds (events are gathered for recorder.window). It grows: run more recorders.",
        asks=[
            Query(quantile(0.5, "dispatcher_event_lag_seconds"), "p50"),
            Query(quantile(0.99, "dispatcher_event_lag_seconds"), "p99"),
        ],
        unit="s", steps=above(10, 120),
    ),
    Panel(
        title="Events recorded",
        says="Events merged into job documents, a second, by recorder. Normal: two to three for each job. 0 under "
        "load: no history is written.",
        asks=[Query(rate_of_role("recorder", "dispatcher_events_recorded_total", HERE), "{{instance}}")],
        unit="suffix: /s", stacked=True,
    ),
])  # fmt: skip

_WRITES = Row("Writes to MongoDB", [
    Panel(
        title="Length of a write",
        says="Half of the recorder's writes, and 99% of them, took no longer than this. Normal: some 10 to 100 ms. It "
        "grows with MongoDB's load, its disk, or a slow member of the replica set.",
        asks=[
            Query(quantile(0.5, "dispatcher_record_seconds", "", HERE), "p50"),
            Query(quantile(0.99, "dispatcher_record_seconds", "", HERE), "p99"),
        ],
        unit="s", steps=above(1, 10),
    ),
    Panel(
        title="Length of a write",
        says="How many writes took how long. Normal: one band. A second one higher up: MongoDB stands still now and "
        "then (checkpoints, elections, another load on its disk).",
        asks=[Query(buckets("dispatcher_record_seconds", HERE), "{{le}}")],
        kind="heatmap", unit="s",
    ),
    Panel(
        title="Events in a write",
        says="Half of the writes, and 99% of them, had no more events than this. Normal: grows with the load, which "
        "makes each event cheaper. At recorder.max_events (4,000): the recorder is full; run another.",
        asks=[
            Query(quantile(0.5, "dispatcher_record_batch_events", "", HERE), "p50"),
            Query(quantile(0.99, "dispatcher_record_batch_events", "", HERE), "p99"),
        ],
        steps=above(4000),
    ),
    Panel(
        title="Not recorded",
        says="Events parked in unrecorded.v1 because they cannot be stored, a second. Normal: 0. Any: `dispatcher "
        "unrecorded list` says why.",
        asks=[Query(rate("dispatcher_events_unrecorded_total"), "parked")],
        unit="suffix: /s",
    ),
    Panel(
        title="Signs of a MongoDB that is away",
        says="Age of the keys in intake's memory, and messages put off meanwhile (a second). Normal: below a second, "
        "and 0. Both rise: MongoDB does not answer; jobs go on for intake.key_grace (300 s) with known keys.",
        asks=[
            Query(most(one("dispatcher_key_cache_age_seconds")), "age of keys (s)"),
            Query(rate("dispatcher_intake_deferred_total"), "put off for a key (/s)"),
            Query(rate("dispatcher_intake_claims_total", "", 'found="away"'), "put off for an id (/s)"),
        ],
        to="apps",
    ),
    Panel(
        title="Without their database",
        says="Processes whose check of the database fails, by service. Normal: 0. Above: these do not reach "
        "MongoDB; if all are, look at it, else at the network.",
        asks=[Query(f"sum by (role) (1 - {one('dispatcher_ready', DATABASE)})", "{{role}}")],
    ),
])  # fmt: skip

_UPKEEP = Row("Upkeep", [
    Panel(
        title="Minutes of statistics",
        says="Minutes of statistics put together, a second, by scheduler. Normal: one a minute, in which jobs were "
        "accepted. 0 for long under load: no scheduler; `dispatcher stats` grows slow.",
        asks=[Query(rate_of_role("scheduler", "dispatcher_statistics_minutes_total"), "{{instance}}")],
        unit="suffix: /s",
    ),
    Panel(
        title="Deleted for its age",
        says="Documents and messages deleted by retention, a second, by place. Normal: after the first weeks, about "
        "what was accepted so many days ago. Flat for days: is a scheduler running?",
        asks=[Query(rate("dispatcher_retention_deleted_total", "place"), "{{place}}")],
        unit="suffix: /s", stacked=True,
    ),
    Panel(
        title="Last pass of retention",
        says="Time since a scheduler last went through history. Normal: below retention.interval (600 s). Above an "
        "hour: no scheduler runs, or it cannot delete; history grows.",
        asks=[Query(f"time() - {most(one('dispatcher_retention_passed_timestamp_seconds'))}", "ago")],
        kind="stat", unit="s", steps=above(3600, DAY),
    ),
])  # fmt: skip

_PROCESSES = Row("Our processes", [
    Panel(
        title="Processor",
        says="Cores that each process uses. Normal: below 1, which is all that one process can use. At 1: that service "
        "is the limit; run another one.",
        asks=[Query(process(f"rate({one('process_cpu_seconds_total', HERE)}[$__rate_interval])"), "{{instance}}")],
        unit="percentunit", steps=above(0.8, 0.95),
    ),
    Panel(
        title="Memory",
        says="Resident memory of each process. Normal: rises under load, then level; docs/memory.md says how much. "
        "A rise without an end: report it.",
        asks=[Query(process(one("process_resident_memory_bytes", HERE)), "{{instance}}")],
        unit="bytes",
    ),
    Panel(
        title="Open files",
        says="Files and sockets that each process has open. Normal: level, some tens. A rise without an end: report "
        "it, before the limit of the process is reached.",
        asks=[Query(process(one("process_open_fds", HERE)), "{{instance}}")],
    ),
    Panel(
        title="Garbage collections",
        says="Collections of the oldest generation, a second. Normal: far below one. Many: much memory is in "
        "references that go in circles, often in handlers.",
        asks=[Query(process(f"rate({one('python_gc_collections_total', HERE, OLDEST)}[$__rate_interval])"),
                    "{{instance}}")],
        unit="suffix: /s",
    ),
    Panel(
        title="Starts",
        says="Time since each process started. Normal: since the last release. A saw: it is killed again and again; "
        "look at its log, and at the memory that it is given.",
        asks=[Query(process(f"time() - {one('process_start_time_seconds', HERE)}"), "{{instance}}")],
        unit="s",
    ),
    Panel(
        title="Versions",
        says="Processes of each version. Normal: one version, two during an upgrade.",
        asks=[Query(f"count by (version) ({one('dispatcher_build_info', HERE)})", "{{version}}")],
        kind="bargauge",
    ),
    Panel(
        title="MongoDB's own metrics",
        says="What is not on this page.",
        asks=[],
        kind="text", width=24, height=4,
        text="This page shows MongoDB as our services see it: how long it takes to answer them. What happens inside it "
        "(replication lag, cache, locks, disk) is measured by an exporter of its own, such as Percona's "
        "`mongodb_exporter`, beside which this page is best read. Nothing here depends on one.",
    ),
])  # fmt: skip

RECORDER = Dashboard(
    name="recorder",
    title="Recorder and database",
    says="Does history keep up, how does MongoDB answer, and what do our processes need?",
    variables=(*INSTALLATION, INSTANCE),
    rows=[_KEEPING_UP, _WRITES, _UPKEEP, _PROCESSES],
)
