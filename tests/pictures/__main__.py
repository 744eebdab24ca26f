"""`make pictures`: a few minutes of a real installation; what each dashboard showed, drawn into docs/images."""

from __future__ import annotations

import asyncio
import json
import sys
from pathlib import Path

import click

from dev import dashboards
from tests.pictures import run
from tests.pictures.drawing import draw

IMAGES = Path(__file__).parents[2] / "docs" / "images"


@click.command()
@click.option("--save", type=click.Path(path_type=Path), help="Keep Prometheus' answers in this file, too.")
@click.option("--of", type=click.Path(path_type=Path, exists=True), help="Draw kept answers instead of running.")
def main(save: Path | None, of: Path | None) -> None:
    """Draw every dashboard."""
    answers = json.loads(of.read_text()) if of else asyncio.run(run.answers())
    if save:
        save.write_text(json.dumps(answers))
    IMAGES.mkdir(exist_ok=True)
    for dashboard in dashboards.ALL:
        target = IMAGES / f"dashboard-{dashboard.name}.png"
        draw(json.loads(dashboards.path_of(dashboard).read_text()), answers[dashboard.name], target)
        print(f"pictures: {target} ({target.stat().st_size // 1024} KiB)")


if __name__ == "__main__":
    sys.exit(main())
