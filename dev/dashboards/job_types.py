"""Which job type fails, which grew slow, which waits?"""

from __future__ import annotations

from dev.dashboards.model import Dashboard, Panel, Query, Row, above
from dev.dashboards.promql import buckets, count, during, quantile, rate, share
from dev.dashboards.variables import INSTALLATION, TYPE

THIS = 'type=~"$type"'
BAD = 'outcome=~"failed|timed_out|crashed"'
RUN = "dispatcher_type_run_seconds"
WAIT = "dispatcher_type_wait_seconds"
ENDED = "dispatcher_type_attempts_total"

_TABLE = Row("All types", [
    Panel(
        title="Types in this time",
        says="Executions of each type in the time shown, the share that failed, ran out of time or crashed, how long "
        "they ran and waited, and how many ran at once on average. Normal: what you are used to. Sort by a column, and "
        "narrow with the choice at the top.",
        asks=[
            Query(count(ENDED, "type", THIS), "Executions", "short"),
            Query(share(during(ENDED, "type", THIS, BAD), during(ENDED, "type", THIS)), "Failed", "percentunit"),
            Query(quantile(0.5, RUN, "type", THIS, over="$__range"), "Run p50", "s"),
            Query(quantile(0.95, RUN, "type", THIS, over="$__range"), "Run p95", "s"),
            Query(quantile(0.5, WAIT, "type", THIS, over="$__range"), "Wait p50", "s"),
            Query(quantile(0.95, WAIT, "type", THIS, over="$__range"), "Wait p95", "s"),
            Query(f"{during(f'{RUN}_sum', 'type', THIS)} / $__range_s", "Run at once", "short"),
        ],
        kind="table", width=24, height=10, columns={"type": "Type"},
    ),
])  # fmt: skip

_COUNTS = Row("How many, how they end", [
    Panel(
        title="Executions, by type",
        says="Executions that ended, a second. Normal: the load. A type that is new or gone: a release, or an "
        "application that changed.",
        asks=[Query(rate(ENDED, "type", THIS), "{{type}}")],
        unit="suffix: /s", stacked=True,
    ),
    Panel(
        title="Share that fails, by type",
        says="Share of the executions that failed, ran out of time or crashed. Normal: level. A jump of one type: what "
        "its handler needs is away, or its release is bad. Of all: look at network and database.",
        asks=[Query(share(rate(ENDED, "type", THIS, BAD), rate(ENDED, "type", THIS)), "{{type}}")],
        unit="percentunit", most=1, steps=above(0.05, 0.2), to="retries",
    ),
    Panel(
        title="How executions end",
        says="Of the chosen types, a second, by outcome. Normal: `succeeded`. `snoozed` and `cancelled` are the "
        "handler's own wish. `timed_out`: look at the run time beside the timeout.",
        asks=[Query(f"{rate(ENDED, 'outcome', THIS)} > 0", "{{outcome}}")],
        unit="suffix: /s", stacked=True,
    ),
])  # fmt: skip

_RUNS = Row("How long they run", [
    Panel(
        title="Run time p95, by type",
        says="95% of the executions took no longer than this. Normal: level. A rise: the handler, or what it calls, "
        "grew slow. At a round number: that is its timeout.",
        asks=[Query(quantile(0.95, RUN, "type", THIS), "{{type}}")],
        unit="s",
    ),
    Panel(
        title="Run time p50, by type",
        says="Half of the executions took no longer than this. Normal: level. Rises with p95: all of them grew slow; "
        "only p95: some of them do, such as those for one customer.",
        asks=[Query(quantile(0.5, RUN, "type", THIS), "{{type}}")],
        unit="s",
    ),
    Panel(
        title="Run time",
        says="Of the chosen types, how many executions took how long. Normal: bands that stay where they are. Choose "
        "one type to see its shape.",
        asks=[Query(buckets(RUN, THIS), "{{le}}")],
        kind="heatmap", unit="s",
    ),
    Panel(
        title="Running at once, by type",
        says="Seconds of run time a second: how many handlers each type keeps busy on average. Normal: the sum is "
        "below worker.concurrency times workers. The highest is where a faster handler saves most.",
        asks=[Query(rate(f"{RUN}_sum", "type", THIS), "{{type}}")],
        stacked=True,
    ),
    Panel(
        title="Wait p95, by type",
        says="95% of the executions began within this time from acceptance, or from the time for which they waited. "
        "Normal: milliseconds. One type alone: its lane, or its priority, is behind.",
        asks=[Query(quantile(0.95, WAIT, "type", THIS), "{{type}}")],
        unit="s", to="lanes",
    ),
    Panel(
        title="Wait",
        says="Of the chosen types, how many executions waited how long. Normal: one band at milliseconds.",
        asks=[Query(buckets(WAIT, THIS), "{{le}}")],
        kind="heatmap", unit="s", to="lanes",
    ),
])  # fmt: skip

TYPES = Dashboard(
    name="types",
    title="Types, latency and errors",
    says="Which job type fails, which grew slow, which waits?",
    variables=(*INSTALLATION, TYPE),
    rows=[_TABLE, _COUNTS, _RUNS],
)
