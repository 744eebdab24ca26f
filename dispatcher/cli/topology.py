"""``dispatcher topology``: what is declared in RabbitMQ."""

from __future__ import annotations

import asyncio
from dataclasses import asdict

import click

from dispatcher import composition
from dispatcher.cli import output
from dispatcher.cli.session import settings


@click.group()
def topology() -> None:
    """Exchanges and queues: declare them, show them."""


@topology.command("apply")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON document.")
def apply(as_json: bool) -> None:
    """Declare every exchange, queue, binding and database index. Doing it again changes nothing."""
    made = asyncio.run(composition.apply_topology(settings()))
    counts = {"exchanges": len(made.exchanges), "queues": len(made.queues), "bindings": len(made.bindings)}
    if as_json:
        output.emit_json(counts)
    else:
        output.say("declared " + ", ".join(f"{number} {what}" for what, number in counts.items()))


@topology.command("show")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON document.")
def show(as_json: bool) -> None:
    """Show what `topology apply` declares, without asking the broker."""
    made = composition.topology_of(settings())
    if as_json:
        output.emit_json(asdict(made))
        return
    output.table("Exchanges", ["exchange", "type"], [(e.name, e.type) for e in made.exchanges])
    rows = [(q.name, ", ".join(f"{k}={v}" for k, v in q.arguments.items() if k != "x-queue-type")) for q in made.queues]
    output.table("Queues (all quorum)", ["queue", "arguments"], rows)
