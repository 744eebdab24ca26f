"""`make away`: MongoDB, then RabbitMQ, is away under load and comes back; ledgers and tables are printed."""

from __future__ import annotations

import json
import math
import sys
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import click

from tests.faults import phases, report
from tests.faults.absences import WAYS, BrokerAway, Found, MongoAway, scenario
from tests.faults.command import on_own_servers
from tests.faults.plan import anonymous_job
from tests.faults.run import Outcome

#: Seconds after the return of the broker within which every consumer is back, and of MongoDB for history.
CONSUMERS_BACK = 10.0
HISTORY_COMPLETE = 60.0
#: Seconds of load before MongoDB goes and after it has come back.
BEFORE, AFTER = 20.0, 40.0
#: Seconds that a broker takes to go and to come back, about: so much load is made for each time.
ROUND_TRIP = 20.0


def table(outcome: Outcome) -> list[dict[str, Any]]:
    """Jobs started a second, and how long they waited for it, before, while and after MongoDB was away."""
    e = outcome.evidence
    (away,) = e.faults
    published = e.published.attempted
    moments = {"before": min(published.values()), "away": away.began, "after": away.ended}
    return phases.measure(moments, max(published.values()), published, e.executions)


def mongo_good(outcome: Outcome, found: Found) -> bool:
    """Whether plain jobs ran on, history was complete in time, /readyz told the truth, and the ledger is clean."""
    away = next(phase for phase in table(outcome) if phase["phase"] == "away")
    return outcome.clean and phases.kept_up(away) and _honest(found) and found.complete_after <= HISTORY_COMPLETE


def broker_good(outcome: Outcome, found: Found) -> bool:
    """Whether every consumer came back in time, /readyz told the truth, and the ledger is clean."""
    return outcome.clean and _honest(found) and all(j.works_after <= CONSUMERS_BACK for j in found.judged)


def _honest(found: Found) -> bool:
    return bool(found.judged) and all(not j.wrong and j.no_after + j.yes_after < math.inf for j in found.judged)


def figures(outcome: Outcome, found: Found) -> dict[str, Any]:
    """The ledger's figures and the measurement's."""
    made = report.figures(outcome) | {"readyz": [asdict(j) for j in found.judged]}
    if found.complete_after < math.inf:
        made |= {"phases": table(outcome), "history_complete_after": round(found.complete_after, 1)}
    return made


def show(outcome: Outcome, found: Found) -> str:
    """The ledger, and below it what was measured."""
    parts = [report.show(outcome)]
    if found.complete_after < math.inf:
        parts.append(phases.show(table(outcome)))
        parts.append(f"history complete           {found.complete_after:.1f} s after the return of MongoDB")
    rows = [_READYZ]
    for absence, kind in dict.fromkeys((j.absence, j.kind) for j in found.judged):
        those = [j for j in found.judged if (j.absence, j.kind) == (absence, kind)]
        cells = [_seconds([getattr(j, name) for j in those]) for name in ("no_after", "works_after", "yes_after")]
        rows.append(
            f"{absence:12}{kind:11}" + "".join(f"{cell:20}" for cell in cells) + f"{sum(j.wrong for j in those)}"
        )
    parts.append("\n".join(rows))
    return "\n\n".join(parts)


_READYZ = (
    f"{'away':12}{'service':11}{'said no after':20}{'worked again after':20}{'said yes after':20}wrong answers\n"
    f"{'':23}{'the loss':20}{'the return':20}{'the return':20}"
)


def _seconds(values: Sequence[float]) -> str:
    return " ".join(f"{value:.1f}" for value in values)


@click.command()
@click.option(
    "--of", "of", type=click.Choice(["mongo", "broker"]), multiple=True, help="Which server; both by default."
)
@click.option("--mongo-seconds", default=240.0, show_default=True, help="How long MongoDB is away.")
@click.option("--broker-seconds", default=10.0, show_default=True, help="How long RabbitMQ is away, at least.")
@click.option("--times", default=3, show_default=True, help="How often RabbitMQ goes away in each way.")
@click.option("--rate", default=250.0, show_default=True, help="Jobs a second.")
@click.option("--json", "as_json", is_flag=True, help="Print a JSON document a server.")
@click.option("--keep", type=click.Path(path_type=Path), help="Move logs and the handlers' lines here.")
def main(
    of: tuple[str, ...],
    mongo_seconds: float,
    broker_seconds: float,
    times: int,
    rate: float,
    as_json: bool,
    keep: Path | None,
) -> None:
    """Take MongoDB away, then RabbitMQ by kill, stop and black hole; ask /readyz all the time whether it is true."""
    good = True
    if "mongo" in of or not of:
        mongo = MongoAway(BEFORE, mongo_seconds)
        jobs = int(rate * (BEFORE + mongo_seconds + AFTER))
        outcome = on_own_servers(scenario(jobs, rate, anonymous_job), "mongo-away", keep, mongo)
        _tell(outcome, mongo.found, as_json)
        good &= mongo_good(outcome, mongo.found)
    if "broker" in of or not of:
        broker = BrokerAway(tuple(WAYS), times, broker_seconds)
        jobs = int(rate * times * len(WAYS) * (broker_seconds + ROUND_TRIP))
        outcome = on_own_servers(scenario(jobs, rate), "broker-away", keep, broker)
        _tell(outcome, broker.found, as_json)
        good &= broker_good(outcome, broker.found)
    sys.exit(0 if good else 1)


def _tell(outcome: Outcome, found: Found, as_json: bool) -> None:
    print(json.dumps(figures(outcome, found)) if as_json else show(outcome, found) + "\n", flush=True)


if __name__ == "__main__":
    main()
