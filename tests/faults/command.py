"""What the commands of this package share: a run on servers of its own."""

from __future__ import annotations

import asyncio
import logging
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import click

from dev.mongo import LocalMongo
from dev.process import ServerError
from dev.rabbit import LocalRabbit
from dev.runs import run_folder
from dev.signals import ending_unwinds
from tests.faults.run import Beside, Outcome, Scenario, nothing, run

DATA = Path(".servers")


@contextmanager
def own_servers() -> Iterator[tuple[LocalRabbit, LocalMongo, Path]]:
    """Servers for the length of a command, and their folder, whose folder ``run`` is for what it writes."""
    with ending_unwinds(), run_folder(DATA, log=lambda _: None) as folder:
        (folder / "run").mkdir()
        quiet: dict[str, Any] = {"cache": DATA / "cache", "log": lambda _: None}
        try:
            with LocalRabbit(folder / "rabbitmq", **quiet) as rabbit, LocalMongo(folder / "mongo", **quiet) as mongo:
                yield rabbit, mongo, folder
        except ServerError as error:
            raise click.ClickException(str(error)) from None


def on_own_servers(scenario: Scenario, name: str, keep: Path | None, beside: Beside = nothing) -> Outcome:
    """Start servers, run the scenario, stop them; logs and the handlers' lines are moved to ``keep`` if it is given."""
    with own_servers() as (rabbit, mongo, folder):
        logging.basicConfig(filename=folder / "run" / "harness.log", level=logging.WARNING, force=True)
        outcome = asyncio.run(run(scenario, rabbit, mongo, folder / "run", progress(), beside))
        if keep is not None:
            (folder / "run").rename(fresh(keep, name))
    return outcome


def progress() -> Callable[[str], None]:
    """A line that is written over, on a terminal; else nothing."""
    if not sys.stderr.isatty():
        return lambda _: None
    return lambda text: print(f"\r\x1b[K{text}", end="", file=sys.stderr, flush=True)


def fresh(folder: Path, name: str) -> Path:
    """A name in a folder that nothing has yet."""
    folder.mkdir(parents=True, exist_ok=True)
    return folder / f"{name}-{len(list(folder.iterdir()))}"
