"""`make chaos`: a long run on servers that it starts itself; the ledger is printed."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterable
from pathlib import Path

import click

from tests.faults import report
from tests.faults.command import on_own_servers
from tests.faults.faults import GROUPS
from tests.faults.run import Outcome, Scenario


def _seeds(text: str) -> list[int]:
    first, _, last = text.partition("-")
    return list(range(int(first), int(last or first) + 1))


@click.command()
@click.option("--seed", type=int, default=1, show_default=True, help="Chooses jobs and faults.")
@click.option("--seeds", help="Several runs, for example 1-10; a table at the end.")
@click.option("--jobs", default=100_000, show_default=True, help="How many are published.")
@click.option("--rate", default=250.0, show_default=True, help="How many a second.")
@click.option("--faults", default=",".join(GROUPS), show_default=True, help="Which sorts of faults, by commas.")
@click.option("--gap", default=5.0, show_default=True, help="Seconds between faults, on average.")
@click.option("--poison", default=5, show_default=True, help="How many jobs kill their process, every time.")
@click.option("--json", "as_json", is_flag=True, help="Print a JSON document a run instead of ledgers.")
@click.option("--keep", type=click.Path(path_type=Path), help="Move logs and the handlers' lines here.")
def main(
    seed: int,
    seeds: str | None,
    jobs: int,
    rate: float,
    faults: str,
    gap: float,
    poison: int,
    as_json: bool,
    keep: Path | None,
) -> None:
    """Publish jobs of every kind while servers and services are killed, cut off and frozen; nothing may be lost."""
    groups = tuple(filter(None, faults.split(",")))
    if unknown := set(groups) - set(GROUPS):
        raise click.BadParameter(f"no faults {', '.join(sorted(unknown))}; there are {', '.join(GROUPS)}")
    numbers = _seeds(seeds) if seeds else [seed]
    scenarios = [Scenario(number, jobs, rate, groups, gap, poison=poison) for number in numbers]
    outcomes = list(_all(scenarios, as_json, keep))
    if len(outcomes) > 1 and not as_json:
        print(report.table(outcomes))
    sys.exit(0 if all(outcome.clean for outcome in outcomes) else 1)


def _all(scenarios: Iterable[Scenario], as_json: bool, keep: Path | None) -> Iterable[Outcome]:
    for scenario in scenarios:
        outcome = on_own_servers(scenario, f"seed-{scenario.seed}", keep)
        print(json.dumps(report.figures(outcome)) if as_json else report.show(outcome) + "\n", flush=True)
        yield outcome


if __name__ == "__main__":
    main()
