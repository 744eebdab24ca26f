"""``dispatcher top``: what waits and runs now."""

from __future__ import annotations

import asyncio
import contextlib
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import click
from rich.console import Group
from rich.live import Live
from rich.table import Table
from rich.text import Text

from dispatcher.cli import output
from dispatcher.cli.session import settings
from dispatcher.core.overview import overview
from dispatcher.services.overview import Overview

_COLUMNS = ["lane", "priority", ">ready", ">running", ">oldest", ">in/s", ">out/s", ">consumers"]


@click.command()
@click.option(
    "--interval",
    type=click.FloatRange(0.2, 3_600),
    default=2.0,
    show_default=True,
    help="Seconds between two looks; rates are of that time.",
)
@click.option("--once", is_flag=True, help="Look twice, show that, and end.")
@click.option("--all", "every", is_flag=True, help="Show lanes and priorities of which nothing waits or runs too.")
@click.option("--json", "as_json", is_flag=True, help="With --once: print one JSON document.")
def top(interval: float, once: bool, every: bool, as_json: bool) -> None:
    """Show what waits and runs now, by lane and priority, until Ctrl-C.

    Depths are RabbitMQ's. What runs, ages and rates are history's, up to 2 s behind.
    """
    if as_json and not once:
        raise click.UsageError("--json prints one document: add --once")
    with contextlib.suppress(KeyboardInterrupt):
        asyncio.run(_run(interval, once, every, as_json))


async def _run(interval: float, once: bool, every: bool, as_json: bool) -> None:
    looking = Overview(settings())
    try:
        before = await looking.look()
        with _screen(live=not once and sys.stdout.isatty()) as show:
            while True:
                await asyncio.sleep(interval)
                now = await looking.look(before.at)
                shown = overview(looking.names, looking.lanes, before, now)
                before = now
                if as_json:
                    output.emit_json(shown | {"at": output.iso(shown["at"])})
                else:
                    show(render(shown, every))
                if once:
                    return
    finally:
        await looking.close()


@contextmanager
def _screen(live: bool) -> Iterator[Any]:
    if not live:
        yield output.console().print
        return
    with Live(console=output.console(), auto_refresh=False) as screen:
        yield lambda renderable: screen.update(renderable, refresh=True)


def render(shown: dict[str, Any], every: bool) -> Group:
    """The document of `overview` for people."""
    lanes = [row for row in shown["lanes"] if every or _busy(row)]
    table = output.new_table(None, _COLUMNS)
    for row in lanes:
        table.add_row(*map(str, _cells(row)))
    parts: list[Table | Text] = [Text(output.clock(shown["at"])), table]
    if not lanes:
        parts.append(Text("nothing waits or runs (--all shows every lane)"))
    parts += [Text(line) for line in _lines(shown)]
    return Group(*parts)


def _busy(row: dict[str, Any]) -> bool:
    return bool(row["ready"] or row["running"] or row["in_per_second"] or row["out_per_second"])


def _cells(row: dict[str, Any]) -> tuple[Any, ...]:
    oldest = row["oldest_seconds"]
    return (
        row["lane"],
        row["priority"],
        *(_or_dash(row[name]) for name in ("ready", "running")),
        "-" if oldest is None else output.duration(oldest * 1000),
        *(_or_dash(row[name]) for name in ("in_per_second", "out_per_second", "consumers")),
    )


def _or_dash(value: Any) -> Any:
    return "-" if value is None else value


def _lines(shown: dict[str, Any]) -> Iterator[str]:
    workers = ", ".join(f"{each['worker']} runs {each['running']}" for each in shown["workers"])
    yield f"workers: {workers or 'none runs a job'}"
    retries = ", ".join(f"{each['waiting']} at {each['seconds']:g} s" for each in shown["retries"])
    yield f"retries and delays on the ladder: {retries or 'none'}"
    yield "queues: " + ", ".join(f"{name} {_or_dash(ready)}" for name, ready in shown["queues"].items())
    for what in ("parked", "suspect"):
        yield f"{what}: " + ", ".join(f"{lane} {_or_dash(ready)}" for lane, ready in shown[what].items())
    if not shown["history"]:
        yield "MongoDB does not answer: what runs, ages and rates are unknown"
    if missing := shown["missing"]:
        yield f"missing queues: {len(missing)}, for example {missing[0]}; run `dispatcher topology apply`"
