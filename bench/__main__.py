"""The command: ``python -m bench [OPTIONS] [MEASUREMENT]…``."""

from __future__ import annotations

from pathlib import Path

import click
from rich.console import Console

from bench import report, timing
from bench.celery_side import Tuning
from bench.compare import Run, compare, compare_ids
from bench.processes import BenchError
from bench.servers import servers
from dev.signals import ending_unwinds

MEASUREMENTS = ("compare", "ids", "latency", "retry-rate", "retry-burst")
DEFAULT = Tuning()


@click.command(context_settings={"help_option_names": ["-h", "--help"]})
@click.argument("measurements", nargs=-1, type=click.Choice((*MEASUREMENTS, "all")))
@click.option("--runs", default=3, show_default=True, type=click.IntRange(min=1), help="compare, ids: runs a side.")
@click.option("--jobs", default=10_000, show_default=True, type=click.IntRange(min=1), help="compare, ids: ours a run.")
@click.option("--celery-jobs", default=3_000, show_default=True, type=click.IntRange(min=0), help="0: without Celery.")
@click.option("--celery-processes", default=DEFAULT.processes, show_default=True, help="Celery's prefork processes.")
@click.option("--celery-prefetch", default=DEFAULT.prefetch, show_default=True, help="Its worker_prefetch_multiplier.")
@click.option("--celery-publishers", default=DEFAULT.publishers, show_default=True, help="Threads of its publisher.")
@click.option("--seconds", default=20.0, show_default=True, help="latency, retry-rate: how long to publish.")
@click.option("--json", "json_file", type=click.Path(dir_okay=False, path_type=Path), help="Write every figure here.")
def main(
    measurements: tuple[str, ...],
    runs: int,
    jobs: int,
    celery_jobs: int,
    celery_processes: int,
    celery_prefetch: int,
    celery_publishers: int,
    seconds: float,
    json_file: Path | None,
) -> None:
    """Measure Job Dispatcher on real servers.

    compare (the default) puts the whole path, from the publisher to finished with history, beside Celery's in
    alternating runs. ids does it for jobs with ids and without. latency, retry-rate and retry-burst are ours alone.
    all is everything.
    """
    wanted = MEASUREMENTS if "all" in measurements else measurements or ("compare",)
    tuning = Tuning(celery_processes, celery_prefetch, celery_publishers)
    made: list[Run] = []
    timings: list[timing.Timing] = []
    try:
        with ending_unwinds(), servers() as given:
            if "compare" in wanted:
                made = compare(given, runs, jobs, celery_jobs, tuning)
            if "ids" in wanted:
                made += compare_ids(given, runs, jobs)
            if "latency" in wanted:
                timings.append(timing.latency(given, seconds))
            if "retry-rate" in wanted:
                timings.append(timing.retry_rate(given, seconds))
            if "retry-burst" in wanted:
                timings.append(timing.retry_burst(given))
    except BenchError as error:
        raise click.ClickException(str(error)) from None
    result = report.summary(made, timings, tuning)
    report.show(result, Console())
    if json_file is not None:
        report.write(result, json_file)


if __name__ == "__main__":
    main()
