"""``dispatcher doctor``: what is wrong with an installation, and what to do."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

import click
from rich.text import Text

from config import SettingsError
from consumers.loading import LoadError, clashes, load_registry
from dispatcher.cli import output
from dispatcher.cli.session import settings
from dispatcher.core.diagnosis import Finding, Status, exit_code, failed
from dispatcher.core.text import counted
from dispatcher.services.doctor import Local, diagnose

_STYLES = {Status.OK: "green", Status.WARNING: "yellow", Status.FAILED: "bold red"}


@click.command()
@click.option("--worker", "target", metavar="MODULE:REGISTRY", help="Look at the handlers of a worker too.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON document: an array.")
@click.pass_context
def doctor(ctx: click.Context, target: str | None, as_json: bool) -> None:
    """Look for whatever is wrong: servers, topology, queues, indexes, keys, clocks. Changes nothing.

    Each line is ok, warning or failed, and says what to do. The exit code is 1 if something failed.
    """
    local = _look_here(target)
    try:
        loaded = settings()
    except SettingsError as error:
        fix = "mend the configuration file or the environment variable that the sentence names"
        findings = [failed("configuration", str(error), fix), *local.findings()]
    else:
        findings = asyncio.run(diagnose(loaded, local))
    _show(findings, as_json)
    ctx.exit(exit_code(findings))


def _look_here(target: str | None) -> Local:
    found = clashes(Path.cwd())
    if target is None:
        return Local(found)
    try:
        handlers = {handler.type: handler.timeout for handler in load_registry(target)}
    except LoadError as error:
        return Local(found, target, load_error=str(error))
    return Local(found, target, handlers)


def _show(findings: Sequence[Finding], as_json: bool) -> None:
    if as_json:
        output.emit_json([asdict(finding) for finding in findings])
        return
    console = output.console()
    told = ""
    for finding in findings:
        line = Text.assemble((f"{finding.status:<8}", _STYLES[finding.status]), f"{finding.check}: ")
        line.append_text(output.plain(finding.message, limit=500))
        console.print(line, soft_wrap=True)
        if finding.fix and finding.fix != told:
            console.print(Text(f"{'':<8}→ ").append_text(output.plain(finding.fix, limit=500)), soft_wrap=True)
        told = finding.fix
    bad = {status: sum(f.status is status for f in findings) for status in (Status.FAILED, Status.WARNING)}
    warnings = counted(bad[Status.WARNING], "warning")
    output.say(f"{counted(len(findings), 'check')}: {bad[Status.FAILED]} failed, {warnings}")
