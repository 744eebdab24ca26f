"""Queries in Prometheus' language, as the panels ask them: which series a dashboard's variables choose, and how they
are put together.

What several processes measure together is summed. What each scheduler measures of the same thing (depths, ages) is
taken from the one that shows the most, never summed.
"""

from __future__ import annotations

#: What the variables at the top of every dashboard choose.
CHOSEN = 'namespace=~"$namespace", job=~"$job"'
#: The same for RabbitMQ's own exporter, which is another job and may be in another namespace.
NODES = 'instance=~"$node"'


def one(metric: str, *where: str) -> str:
    """The chosen series of a metric of ours; ``where`` are further conditions on labels."""
    return f"{metric}{{{', '.join([CHOSEN, *where])}}}"


def broker(metric: str, *where: str) -> str:
    """The chosen nodes' series of RabbitMQ's exporter."""
    return f"{metric}{{{', '.join([NODES, *where])}}}"


def total(series: str, by: str = "") -> str:
    """The sum, for each value of the labels in ``by``."""
    return f"sum{_by(by)}({series})"


def most(series: str, by: str = "") -> str:
    """The highest, for each value of the labels in ``by``."""
    return f"max{_by(by)}({series})"


def rate(metric: str, by: str = "", *where: str) -> str:
    """How much of it a second, of our counters, over the shortest time that the graph can show."""
    return total(f"rate({one(metric, *where)}[$__rate_interval])", by)


def during(metric: str, by: str = "", *where: str) -> str:
    """How much of it in the whole time that the dashboard shows."""
    return total(f"increase({one(metric, *where)}[$__range])", by)


def count(metric: str, by: str = "", *where: str) -> str:
    """The same of what is whole: Prometheus guesses at the edges, and gives fractions."""
    return f"round({during(metric, by, *where)})"


def broker_rate(metric: str, by: str = "", *where: str) -> str:
    """How much of it a second, of RabbitMQ's counters."""
    return total(f"rate({broker(metric, *where)}[$__rate_interval])", by)


def quantile(share: float, metric: str, by: str = "", *where: str, over: str = "$__rate_interval") -> str:
    """Below which value this share of a histogram's observations is, for each value of the labels in ``by``."""
    labels = ", ".join(filter(None, [by, "le"]))
    seen = one(f"{metric}_bucket", *where)
    return f"histogram_quantile({share}, {total(f'rate({seen}[{over}])', labels)})"


def buckets(metric: str, *where: str) -> str:
    """Observations of each bucket, for a heatmap."""
    seen = one(f"{metric}_bucket", *where)
    return total(f"increase({seen}[$__rate_interval])", "le")


def depth(metric: str, labels: str, by: str = "", *where: str) -> str:
    """What each scheduler measures by these labels, summed for each value of those in ``by``."""
    return total(most(one(metric, *where), labels), by)


def process(series: str, by: str = "instance") -> str:
    """What is measured of every process, of ours alone, by process."""
    return f"sum by ({by}) ({series} and on (instance, job) dispatcher_build_info)"


def of_role(role: str, series: str) -> str:
    """What only one service measures, by process; the others show 0 of it, and are left out."""
    return f'sum by (instance) ({series} and on (instance, job) dispatcher_ready{{role="{role}"}})'


def rate_of_role(role: str, metric: str, *where: str) -> str:
    """The same of a counter, a second."""
    return of_role(role, f"rate({one(metric, *where)}[$__rate_interval])")


def share(part: str, whole: str) -> str:
    """A part of a whole, 0 to 1: of the parts that are not there, 0; no value where the whole is nothing."""
    return f"({part} or {whole} * 0) / ({whole} > 0)"


def or_zero(query: str) -> str:
    """0 where no series is there: no alert fires, nothing has happened yet."""
    return f"{query} or vector(0)"


def _by(labels: str) -> str:
    return f" by ({labels}) " if labels else " "
