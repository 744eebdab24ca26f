"""Commands that run services."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import click

from config import Settings, load_settings
from dispatcher import __version__, composition
from dispatcher.cli.output import say
from dispatcher.edges import log, metrics
from dispatcher.edges.amqp import BrokerError
from dispatcher.edges.mongo import MongoError
from dispatcher.services.host import Service, serve

_logger = log.get("up")

#: Pause before the topology is declared again, in seconds.
AWAY_PAUSE = 2.0
#: Seconds that a worker gets to stop after its grace period.
STOPPING = 30.0


@click.command()
@click.argument("service", type=click.Choice(sorted(composition.SERVICES)))
def run(service: str) -> None:
    """Run one service until it is told to stop (SIGTERM or Ctrl-C)."""
    _serve(lambda settings: [composition.service(settings, service)])


@click.command()
@click.argument("target", metavar="MODULE:REGISTRY")
@click.option("--reload", is_flag=True, help="Start anew when a Python file in this folder changes; for development.")
def worker(target: str, reload: bool) -> None:
    """Run a worker with the handlers of MODULE:REGISTRY, for example examples.handlers:jobs."""
    if reload:
        _reload(target)
        return
    _serve(lambda settings: [composition.worker(settings, target)])


@click.command()
@click.option("--worker", "target", metavar="MODULE:REGISTRY", help="Run a worker with these handlers too.")
def up(target: str | None) -> None:
    """Run every service in one process, for one machine. Declares the topology first."""

    if target is None:
        say("up runs intake, recorder and scheduler; run handlers beside it: dispatcher worker MODULE:REGISTRY")
    _serve(lambda settings: composition.everything(settings, target), _apply_topology)


def _reload(target: str) -> None:
    """A worker in a child process, started anew at every change."""
    from dispatcher.edges.reloading import supervise

    settings = load_settings()
    folder = Path.cwd()
    say(f"watching {folder} (--reload is for development, not for production)")
    supervise(["worker", target], folder, settings.worker.grace + STOPPING, say)


async def _apply_topology(settings: Settings) -> None:
    """Declare the topology, as soon as the servers are there."""
    while True:
        try:
            await composition.apply_topology(settings)
            return
        except (BrokerError, MongoError) as error:
            _logger.error("cannot declare the topology yet", error=str(error))
            await asyncio.sleep(AWAY_PAUSE)


def _serve(make: Callable[[Settings], Sequence[Service]], prepare: Callable[[Settings], Any] | None = None) -> None:
    settings = load_settings()
    log.configure(settings.log.level, settings.log.format)

    async def main() -> None:
        services = make(settings)  # first: a registry that cannot be loaded need not wait for servers
        if prepare is not None:
            await prepare(settings)
        metrics.build_info.labels(__version__).set(1)
        await serve(settings, services)

    with asyncio.Runner(loop_factory=_loop_factory()) as runner:
        runner.run(main())


def _loop_factory() -> Callable[[], asyncio.AbstractEventLoop] | None:
    """uvloop, which halves the cost of a message, wherever it exists (not on Windows)."""
    if sys.platform == "win32":
        return None
    import uvloop

    return uvloop.new_event_loop
