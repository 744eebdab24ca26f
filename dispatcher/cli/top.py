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
from dispatcher.cli.session import settings, warn_of_skew
from dispatcher.cli.terminal import leaving
from dispatcher.core.overview import overview
from dispatcher.services.overview import Overview

#: What unacknowledged messages are called, in a column that is there only where they are known.
_HELD = ">unacked"
_COLUMNS = ["lane", "priority", ">ready", _HELD, ">running", ">oldest", ">in/s", ">out/s", ">consumers"]
#: What goes first where the terminal is narrow.
_DROP = [">consumers", _HELD, ">in/s", ">out/s", ">running"]


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
    """Show what waits and runs now, by lane and priority, until q or Ctrl-C.

    Depths are RabbitMQ's, unacknowledged messages too, where amqp.management_url is set (they are up to 5 s old). What
    runs, ages and rates are history's, up to 2 s behind. Idle are the workers of a lane that run no job of it; those
    that only run jobs of milliseconds seem so too.
    """
    if as_json and not once:
        raise click.UsageError("--json prints one document: add --once")
    with contextlib.suppress(KeyboardInterrupt):
        asyncio.run(_run(interval, once, every, as_json))


async def _run(interval: float, once: bool, every: bool, as_json: bool) -> None:
    looking = Overview(settings())
    try:
        warn_of_skew(await looking.clock_ahead())
        before = await looking.look()
        with leaving() as leave, _screen(live=not once and sys.stdout.isatty()) as show:
            while not await _left(leave, interval):
                now = await looking.look(before.at)
                shown = overview(looking.names, looking.lanes, before, now)
                before = now
                if as_json:
                    output.emit_json(shown | {"at": output.iso(shown["at"])})
                else:
                    show(render(shown, every))
                if once:
                    break
    finally:
        await looking.close()


async def _left(leave: asyncio.Event, seconds: float) -> bool:
    """Whether it is to leave, at once or within this time."""
    with contextlib.suppress(TimeoutError):
        await asyncio.wait_for(leave.wait(), seconds)
    return leave.is_set()


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
    known = any(row["unacknowledged"] is not None for row in shown["lanes"])
    rows = [_cells(row, known) for row in lanes]
    columns = [column for column in _COLUMNS if known or column != _HELD]
    table, gone = output.fitting(output.console(), None, columns, rows, _DROP)
    parts: list[Table | Text] = [Text(output.clock(shown["at"])), table]
    if gone:
        parts.append(Text(f"no room for: {', '.join(gone)}"))
    if not lanes:
        parts.append(Text("nothing waits or runs (--all shows every lane)"))
    parts += [output.plain(line, output.PIPED_WIDTH) for line in _lines(shown)]
    return Group(*parts)


def _busy(row: dict[str, Any]) -> bool:
    return bool(
        row["ready"] or row["unacknowledged"] or row["running"] or row["in_per_second"] or row["out_per_second"]
    )


def _cells(row: dict[str, Any], held: bool) -> tuple[Any, ...]:
    oldest = row["oldest_seconds"]
    return (
        row["lane"],
        row["priority"],
        *(_or_dash(row[name]) for name in ("ready", *(["unacknowledged"] if held else []), "running")),
        "-" if oldest is None else output.duration(oldest * 1000),
        *(_or_dash(row[name]) for name in ("in_per_second", "out_per_second", "consumers")),
    )


def _or_dash(value: Any) -> Any:
    return "-" if value is None else value


def _lines(shown: dict[str, Any]) -> Iterator[str]:
    workers = ", ".join(f"{each['worker']} runs {each['running']}" for each in shown["workers"])
    yield f"workers: {workers or 'none runs a job'}"
    yield "idle: " + ", ".join(
        f"{each['lane']} {_or_dash(each['idle'])} of {_or_dash(each['workers'])}" for each in shown["serving"]
    )
    retries = ", ".join(f"{each['waiting']} at {each['seconds']:g} s" for each in shown["retries"])
    yield f"retries and delays on the ladder: {retries or 'none'}"
    yield "queues: " + ", ".join(f"{name} {_or_dash(ready)}" for name, ready in shown["queues"].items())
    for what in ("parked", "suspect"):
        yield f"{what}: " + ", ".join(f"{lane} {_or_dash(ready)}" for lane, ready in shown[what].items())
    if not shown["history"]:
        yield "MongoDB does not answer: what runs, ages and rates are unknown"
    if missing := shown["missing"]:
        yield f"missing queues: {len(missing)}, for example {missing[0]}; run `dispatcher topology apply`"
