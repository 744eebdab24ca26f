"""What fails and comes back, what gave up, and does what waits for its time come?"""

from __future__ import annotations

from dev.dashboards.model import Dashboard, Panel, Query, Row, above
from dev.dashboards.promql import count, depth, most, of_role, one, rate, share
from dev.dashboards.variables import INSTALLATION, LANE
from dispatcher.core.ladder import LEVELS, UNITS_PER_SECOND

IN_LANE = 'lane=~"$lane"'
GAVE_UP = 'state=~"failed|timed_out"'
BAD = 'outcome=~"failed|timed_out|crashed"'
PARKED = 'queue=~"parked.v1.($lane)"'
LADDER = most(one("dispatcher_retries_waiting"), "level")


def _holds(level: int) -> str:
    """For how long a level holds a message, in words."""
    seconds = 2**level / UNITS_PER_SECOND
    size, unit = next(((size, unit) for size, unit in ((3600, "h"), (60, "min")) if seconds >= size), (1, "s"))
    return f"{level}: {seconds / size:.3g} {unit}"


_FAILING = Row("What fails", [
    Panel(
        title="Failed executions",
        says="Executions that failed, ran out of time or crashed, a second. Normal: low and level. A jump: something "
        "that handlers need is away. `dispatcher dead list` groups what gave up by kind of error.",
        asks=[Query(rate("dispatcher_attempts_total", "outcome", IN_LANE, BAD), "{{outcome}}")],
        unit="suffix: /s", stacked=True, to="types",
    ),
    Panel(
        title="Share that fails, by lane",
        says="Of the executions that ended, the share that failed, ran out of time or crashed. Normal: level. Above a "
        "fifth for long: retries alone will keep the workers busy.",
        asks=[Query(share(rate("dispatcher_attempts_total", "lane", IN_LANE, BAD),
                          rate("dispatcher_attempts_total", "lane", IN_LANE)), "{{lane}}")],
        unit="percentunit", most=1, steps=above(0.05, 0.2),
    ),
    Panel(
        title="Retries, and retries that are spent",
        says="Failed attempts that will be tried again, and jobs that ended `failed` or `timed_out`, a second. Normal: "
        "retries far above the others. Both alike: retrying does not help; look at what fails.",
        asks=[
            Query(rate("dispatcher_retries_total", "", IN_LANE), "to be tried again"),
            Query(rate("dispatcher_jobs_final_total", "state", IN_LANE, GAVE_UP), "ended {{state}}"),
        ],
        unit="suffix: /s",
    ),
])  # fmt: skip

_LADDER = Row("What waits for its time", [
    Panel(
        title="In the delay ladder",
        says="Retries, snoozes and short delays that wait in RabbitMQ. Normal: the rate of retries times their delay. "
        "After a failure of something outside it rises, and falls again when that is back.",
        asks=[Query(depth("dispatcher_retries_waiting", "level"), "waiting")],
        height=10,
    ),
    Panel(
        title="In the delay ladder, by level",
        says="The same now, by the levels of the ladder and the time for which each holds a message. Normal: nothing "
        "stays at a level for longer than that. A short one that stays full is stuck.",
        asks=[Query(LADDER, "level {{level}}")],
        kind="bargauge", height=10, names={f"level {level:02d}": _holds(level) for level in range(LEVELS)},
    ),
    Panel(
        title="Overdue",
        says="How long ago the first of the jobs that wait for a time or a retry was due. Normal: 0 to some seconds. "
        "It grows: the ladder is stuck, or no scheduler runs; docs/troubleshooting.md.",
        asks=[Query(most(one("dispatcher_overdue_seconds", IN_LANE), "lane, state"), "{{lane}} {{state}}")],
        unit="s", height=10, steps=above(30, 300),
    ),
])  # fmt: skip

_DEAD = Row("What gave up", [
    Panel(
        title="Parked now",
        says="Dead letters: messages of jobs that gave up, kept for replay. Normal: does not grow. `dispatcher dead "
        "list`, then `dead replay` by kind of error, type or time.",
        asks=[Query(depth("dispatcher_queue_ready", "queue", "", PARKED), "parked")],
        kind="stat", width=4, steps=above(1, 1000),
    ),
    Panel(
        title="Jobs that failed in this time",
        says="Jobs that ended `failed` or `timed_out` in the time shown. Normal: few. Their number beside what is "
        "parked tells how many were replayed.",
        asks=[Query(count("dispatcher_jobs_final_total", "", IN_LANE, GAVE_UP), "jobs")],
        kind="stat", width=4, steps=above(1, 1000), decimals=0,
    ),
    Panel(
        title="Parked, by lane",
        says="Dead letters over time. Normal: level. A step: a batch of jobs gave up at once. It falls by replays, and "
        "by retention after 30 days.",
        asks=[Query(most(one("dispatcher_queue_ready", PARKED), "queue"), "{{queue}}")],
        stacked=True,
    ),
    Panel(
        title="How jobs end",
        says="Jobs that came to a final state, a second. Normal: nearly all succeed. `expired`: they waited too long; "
        "`cancelled`: a handler or an operator ended them; `duplicate`: a unique key.",
        asks=[Query(f"{rate('dispatcher_jobs_final_total', 'state', IN_LANE)} > 0", "{{state}}")],
        unit="suffix: /s", stacked=True,
    ),
])  # fmt: skip

_CRASHES = Row("Crashes and what they leave", [
    Panel(
        title="Suspects",
        says="Steps set apart because the processes that held them died again and again, a second. Normal: 0. A rise: "
        "a handler kills its worker; its job ends with outcome `crashed`.",
        asks=[Query(rate("dispatcher_suspects_total", "lane", IN_LANE), "{{lane}}")],
        unit="suffix: /s", width=6,
    ),
    Panel(
        title="Stale deliveries",
        says="Deliveries dropped because their step was settled already, a second. Normal: 0; some after a crash or a "
        "lost connection, which is how nothing runs twice. Steady: connections break all the time.",
        asks=[Query(rate("dispatcher_stale_deliveries_total"), "dropped")],
        unit="suffix: /s", width=6, to="broker",
    ),
    Panel(
        title="Published again",
        says="Messages that were published again because the broker refused them or did not answer, a second. Normal: "
        "0. A rise: connections break, or a queue does not work.",
        asks=[Query(rate("dispatcher_publishes_again_total", "role"), "{{role}}")],
        unit="suffix: /s", width=6, to="broker",
    ),
    Panel(
        title="Abandoned handlers",
        says="Threads and tasks whose handler ran out of time or was cancelled, and that still run. Normal: 0, or "
        "short peaks. For long: a handler hangs; it should look at ctx.cancelled, or run in a process.",
        asks=[
            Query(of_role("worker", one("dispatcher_threads_abandoned")), "{{instance}} threads"),
            Query(of_role("worker", one("dispatcher_tasks_abandoned")), "{{instance}} tasks"),
        ],
        width=6,
    ),
])  # fmt: skip

RETRIES = Dashboard(
    name="retries",
    title="Retries and dead letters",
    says="What fails and comes back, what gave up, and does what waits for its time come?",
    variables=(*INSTALLATION, LANE),
    rows=[_FAILING, _LADDER, _DEAD, _CRASHES],
)
