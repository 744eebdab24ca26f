"""`make mixed`: short jobs beside long ones, and a worker is killed; the short ones keep their rate."""

from __future__ import annotations

import asyncio
import json
import sys
import time
from collections import Counter
from pathlib import Path
from typing import Any

import click

from tests.faults import phases, report
from tests.faults.absences import scenario
from tests.faults.command import on_own_servers
from tests.faults.faults import Scene, named
from tests.faults.load import Load
from tests.faults.plan import Job, plain_job
from tests.faults.run import Outcome
from tests.faults.schedule import Trouble

#: Seconds of short jobs alone at first, and of long ones beside them before the kill; and after the last long one.
ALONE, BESIDE, AFTER = 20.0, 40.0, 10.0
#: Seconds after a kill in which steps come again and the worker starts.
RECOVERY = 5.0
#: Executions again of what had ended when the worker was killed.
MOST_EXTRA = 1


def long_job(number: int, seconds: float) -> Job:
    """A job of so many seconds, in the lane and of the priority of the short ones."""
    return plain_job(f"long-{number:03d}", timeout=2 * seconds, ms=int(seconds * 1000))


class LongOnes:
    """Publishes long jobs after a while, and kills a worker that is running some of them."""

    def __init__(self, count: int, seconds: float, alone: float = ALONE, beside: float = BESIDE) -> None:
        self._jobs = [long_job(number, seconds) for number in range(count)]
        self._alone, self._beside = alone, beside
        #: When the long ones were published, in seconds since the epoch.
        self.published_at = 0.0

    async def __call__(self, scene: Scene, load: Load, trouble: Trouble) -> None:
        """Beside a run."""
        await asyncio.sleep(self._alone)
        self.published_at = time.time()
        await asyncio.gather(*map(load.one, self._jobs))
        await asyncio.sleep(self._beside)
        await trouble.act(named("kill worker"), "worker-1", 0.0)


def table(outcome: Outcome, long_ones: LongOnes) -> list[dict[str, Any]]:
    """Short jobs alone, beside long ones, while a worker comes back, and after that."""
    e = outcome.evidence
    (kill,) = e.faults
    short = {job: at for job, at in e.published.attempted.items() if not job.startswith("long")}
    moments = {
        "alone": min(short.values()),
        "beside": long_ones.published_at,
        "kill": kill.began,
        "after": kill.began + RECOVERY,
    }
    return phases.measure(moments, max(short.values()), short, e.executions)


def again(outcome: Outcome) -> dict[str, int]:
    """Steps that were executed again: long and short ones that the kill interrupted, and those that had ended."""
    steps = [executions for executions in outcome.evidence.steps.values() if len(executions) > 1]
    counts = Counter(
        "ended" if first.ended is not None else "long" if first.job.startswith("long") else "short"
        for first, *_ in steps
    )
    return {name: counts[name] for name in ("long", "short", "ended")}


def good(outcome: Outcome, long_ones: LongOnes) -> bool:
    """Whether the ledger is clean, the rate is kept, and only what was unfinished ran again."""
    rates = [phases.kept_up(row) for row in table(outcome, long_ones)]
    seen = again(outcome)
    return outcome.clean and all(rates) and seen["long"] > 0 and seen["ended"] <= MOST_EXTRA


def figures(outcome: Outcome, long_ones: LongOnes) -> dict[str, Any]:
    """The ledger's figures and the measurement's."""
    return report.figures(outcome) | {"phases": table(outcome, long_ones), "again": again(outcome)}


def show(outcome: Outcome, long_ones: LongOnes) -> str:
    """The ledger, and below it what was measured."""
    seen = again(outcome)
    rows = [
        ("run again, unfinished", f"{seen['long']} long, {seen['short']} short"),
        ("run again, had ended", f"{seen['ended']} (at most {MOST_EXTRA})"),
    ]
    lines = [f"{name:26} {value}" for name, value in rows]
    return "\n\n".join([report.show(outcome), phases.show(table(outcome, long_ones)), "\n".join(lines)])


@click.command()
@click.option("--rate", default=500.0, show_default=True, help="Short jobs a second.")
@click.option("--long", "count", default=100, show_default=True, help="Long jobs; the workers have 200 places.")
@click.option("--seconds", default=300.0, show_default=True, help="How long each of those is.")
@click.option("--json", "as_json", is_flag=True, help="Print a JSON document.")
@click.option("--keep", type=click.Path(path_type=Path), help="Move logs and the handlers' lines here.")
def main(rate: float, count: int, seconds: float, as_json: bool, keep: Path | None) -> None:
    """Publish short jobs all the time, long ones beside them, and kill a worker that runs both."""
    long_ones = LongOnes(count, seconds)
    jobs = int(rate * (ALONE + BESIDE + seconds + AFTER))
    outcome = on_own_servers(scenario(jobs, rate), "mixed", keep, long_ones)
    print(json.dumps(figures(outcome, long_ones)) if as_json else show(outcome, long_ones), flush=True)
    sys.exit(0 if good(outcome, long_ones) else 1)


if __name__ == "__main__":
    main()
