"""What the commands of this package share: a run on servers of its own."""

from __future__ import annotations

import asyncio
import logging
import sys
from collections.abc import Callable
from pathlib import Path

import click

from dev.mongo import LocalMongo
from dev.process import ServerError
from dev.rabbit import LocalRabbit
from dev.runs import run_folder
from dev.signals import ending_unwinds
from tests.faults.run import Beside, Outcome, Scenario, nothing, run

DATA = Path(".servers")


def on_own_servers(scenario: Scenario, name: str, keep: Path | None, beside: Beside = nothing) -> Outcome:
    """Start servers, run the scenario, stop them; logs and the handlers' lines are moved to ``keep`` if it is given."""
    with ending_unwinds(), run_folder(DATA, log=lambda _: None) as folder:
        (folder / "run").mkdir()
        logging.basicConfig(filename=folder / "run" / "harness.log", level=logging.WARNING, force=True)
        quiet = {"cache": DATA / "cache", "log": lambda _: None}
        try:
            with LocalRabbit(folder / "rabbitmq", **quiet) as rabbit, LocalMongo(folder / "mongo", **quiet) as mongo:
                outcome = asyncio.run(run(scenario, rabbit, mongo, folder / "run", progress(), beside))
        except ServerError as error:
            raise click.ClickException(str(error)) from None
        if keep is not None:
            (folder / "run").rename(_fresh(keep, name))
    return outcome


def progress() -> Callable[[str], None]:
    """A line that is written over, on a terminal; else nothing."""
    if not sys.stderr.isatty():
        return lambda _: None
    return lambda text: print(f"\r\x1b[K{text}", end="", file=sys.stderr, flush=True)


def _fresh(folder: Path, name: str) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    return folder / f"{name}-{len(list(folder.iterdir()))}"
