"""`make soak`: an hour of load on servers that it starts itself; a table of every process's memory is printed."""

from __future__ import annotations

import asyncio
import json
import logging
import shutil
import sys
from collections.abc import Callable
from pathlib import Path

import click
import uvloop

from dev.mongo import LocalMongo
from dev.rabbit import LocalRabbit
from dev.runs import run_folder
from dev.signals import ending_unwinds
from tests.soak import report
from tests.soak.run import Plan, run

DATA = Path(".servers")


def _progress() -> Callable[[str], None]:
    """A line that is written over, on a terminal; else nothing."""
    if not sys.stderr.isatty():
        return lambda _: None
    return lambda text: print(f"\r\x1b[K{text}", end="", file=sys.stderr, flush=True)


@click.command()
@click.option("--minutes", default=60.0, show_default=True, help="How long; a third of it, at least, is steady load.")
@click.option("--queued", default=1_000_000, show_default=True, help="Jobs waiting in the work queues.")
@click.option("--delayed", default=100_000, show_default=True, help="Jobs waiting in the delay ladder.")
@click.option("--keys", default=10_000, show_default=True, help="API keys, all used.")
@click.option("--rate", default=200.0, show_default=True, help="Jobs a second of the steady load.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON document instead of the table.")
@click.option("--keep", type=click.Path(path_type=Path), help="Copy logs and samples to this folder.")
def main(minutes: float, queued: int, delayed: int, keys: int, rate: float, as_json: bool, keep: Path | None) -> None:
    """Fill the broker, then keep the load up: the memory of each process must stay within its bounds."""
    plan, quiet = Plan(minutes, queued, delayed, keys, rate), {"log": lambda _: None}
    with ending_unwinds(), run_folder(DATA, log=lambda _: None) as folder:
        ours = folder / "run"
        ours.mkdir()
        logging.basicConfig(filename=ours / "harness.log", level=logging.WARNING, force=True)
        with (
            LocalRabbit(folder / "rabbitmq", **quiet) as rabbit,
            LocalMongo(folder / "mongo", cache=DATA / "cache", **quiet) as mongo,
            asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner,
        ):
            outcome = runner.run(run(plan, rabbit, mongo, ours, _progress()))
        if keep is not None:
            shutil.copytree(ours, keep, dirs_exist_ok=True)
    print(json.dumps(report.figures(outcome)) if as_json else report.show(outcome))
    sys.exit(0 if outcome.clean else 1)


if __name__ == "__main__":
    main()
