"""`make delays`: thousands of jobs in the delay ladder while the broker is killed; nothing is lost, none is early."""

from __future__ import annotations

import json
import sys
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import click

from dispatcher.core import ladder
from tests.faults import report
from tests.faults.command import on_own_servers
from tests.faults.faults import named
from tests.faults.ledger import Evidence, Happened, waits
from tests.faults.plan import Job, make_delays
from tests.faults.run import Outcome, Scenario
from tests.faults.schedule import Planned

#: Repeated executions that two kills may cost.
MOST_EXTRA = 12
#: Seconds after the return of a killed broker in which it is still handing on what came due meanwhile.
CATCHING_UP = 30.0


def scenario(seed: int, jobs: int, rate: float, longest: float, kills: Sequence[tuple[float, float]]) -> Scenario:
    """Jobs that are put off, for up to ``longest`` seconds at first.

    Args:
        kills: of the broker: seconds after the last job is published, and for how long.
    """
    kill = named("kill broker")
    schedule = [Planned(jobs / rate + at, kill, "broker", lasts) for at, lasts in kills]
    return Scenario(seed, jobs, rate, plan=make_delays(jobs, seed, longest), schedule=schedule)


def figures(outcome: Outcome) -> dict[str, Any]:
    """The ledger's figures, and those of the delays."""
    e = outcome.evidence
    jobs = list(e.published.jobs.values())
    delays = [step.after for job in jobs for step in job.steps[1:]]
    levels = Counter(level for delay in delays for level in range(ladder.LEVELS) if ladder.units(delay) >> level & 1)
    return report.figures(outcome) | {
        "retried": _ending(jobs, "failed"),
        "snoozed": _ending(jobs, "snoozed"),
        "levels": {f"{2**level / 8:g} s": n for level, n in sorted(levels.items())},
        "kills": [_kill(e, fault) for fault in e.faults],
        "early": len(outcome.discrepancies["early"]),
        "late_ms": _late(e),
    }


def _ending(jobs: Sequence[Job], outcome: str) -> int:
    return sum(step.outcome == outcome for job in jobs for step in job.steps)


def _kill(e: Evidence, fault: Happened) -> dict[str, Any]:
    """What stood in the ladder when the broker was killed, and what came due before it was back."""
    waiting = {x.step: due for x, due in waits(e) if x.started > fault.began}
    published = {x.job for x in e.executions if x.started < fault.began}
    return {
        "away_s": round(fault.ended - fault.began, 1),
        "in_the_ladder": sum(step[0] in published for step in waiting),
        "due_meanwhile": sum(fault.began <= due <= fault.ended for due in waiting.values()),
    }


def _late(e: Evidence) -> dict[str, float]:
    """How long after their time executions began: those that waited while no broker was away, and all.

    What is to leave a level of the ladder while the broker is away leaves it late, and waits in full for the others.
    """
    late, calm = [], []
    for execution, due in waits(e):
        late.append(execution.started - due)
        job = e.published.jobs[execution.job]
        step = job.step(*execution.step[2:])
        began = due - step.after if step is not None else due
        if not any(fault.began - 1 <= due and began <= fault.ended + CATCHING_UP for fault in e.faults):
            calm.append(late[-1])
    return {f"undisturbed_{name}": value for name, value in _percentiles(calm).items()} | _percentiles(late)


def _percentiles(seconds: Sequence[float]) -> dict[str, float]:
    ordered = sorted(seconds)
    at = {"p50": 0.5, "p99": 0.99, "max": 1.0}
    return {name: round(ordered[int(q * (len(ordered) - 1))] * 1000, 1) for name, q in at.items() if ordered}


def show(outcome: Outcome) -> str:
    """The ledger, and below it what it says of the delays."""
    f = figures(outcome)
    kills = [
        f"{kill['away_s']} s away, {kill['in_the_ladder']} in the ladder, of which {kill['due_meanwhile']} came due"
        for kill in f["kills"]
    ]
    rows = [
        ("jobs put off", f"{f['jobs']}: {f['retried']} retries, {f['snoozed']} snoozes"),
        ("levels passed", ", ".join(f"{level} {n}" for level, n in f["levels"].items())),
        *((f"kill {number}", text) for number, text in enumerate(kills, 1)),
        ("lost", f["discrepancies"]["lost"]),
        ("extra executions", f"{f['extra']} (at most {MOST_EXTRA})"),
        ("early", f["early"]),
        ("late, in ms", ", ".join(f"{name} {ms:g}" for name, ms in f["late_ms"].items())),
    ]
    return report.show(outcome) + "\n\n" + "\n".join(f"{name:26} {value}" for name, value in rows)


def good(outcome: Outcome) -> bool:
    """Whether the bars are held."""
    return outcome.clean and len(outcome.evidence.extras()) <= MOST_EXTRA


@click.command()
@click.option("--seed", type=int, default=1, show_default=True, help="Chooses the delays.")
@click.option("--jobs", default=6_000, show_default=True, help="How many are published.")
@click.option("--rate", default=250.0, show_default=True, help="How many a second.")
@click.option("--longest", default=127.875, show_default=True, help="Longest delay in seconds.")
@click.option("--json", "as_json", is_flag=True, help="Print a JSON document.")
@click.option("--keep", type=click.Path(path_type=Path), help="Move logs and the handlers' lines here.")
def main(seed: int, jobs: int, rate: float, longest: float, as_json: bool, keep: Path | None) -> None:
    """Put jobs off by retries and snoozes, and kill the broker twice; the second time many come due meanwhile."""
    kills = [(1.0, 0.0), (longest * 0.35, 30.0)]
    outcome = on_own_servers(scenario(seed, jobs, rate, longest, kills), f"delays-{seed}", keep)
    print(json.dumps(figures(outcome)) if as_json else show(outcome), flush=True)
    sys.exit(0 if good(outcome) else 1)


if __name__ == "__main__":
    main()
