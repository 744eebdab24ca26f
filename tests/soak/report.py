"""The table of a soak, for people and as JSON."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

from tests.soak.run import Outcome
from tests.soak.verdict import EXPLAINED, GROWTH, MIB, explained


def figures(outcome: Outcome) -> dict[str, Any]:
    """Everything as one JSON document; memory in bytes."""
    return {
        "plan": asdict(outcome.plan),
        "clean": outcome.clean,
        "seconds": round(outcome.seconds, 1),
        "published": outcome.published,
        "documents": outcome.documents,
        "queues": outcome.queues,
        "allowed_above_idle": {kind: explained(kind) for kind in EXPLAINED},
        "rows": [asdict(row) for row in outcome.rows],
        "problems": outcome.problems,
    }


def show(outcome: Outcome) -> str:
    """The table for people; memory in MiB."""
    plan = outcome.plan
    lines = [
        f"{plan.queued} queued, {plan.delayed} in the ladder, {plan.keys} keys, steady {plan.rate:g}/s: "
        f"{outcome.seconds / 60:.1f} minutes, {outcome.published} published, {outcome.documents} documents",
        "",
        f"{'process':20} {'phase':8} {'begin':>8} {'end':>8} {'peak':>8} {'PSS':>8} {'an hour':>8}  verdict",
    ]
    for row in sorted(outcome.rows, key=lambda row: row.process):
        sizes = "".join(f" {size / MIB:8.1f}" for size in (row.begin, row.end, row.peak, row.pss))
        growth = f"{row.growth / MIB:+8.1f}" if row.growth is not None else " " * 8
        judged = row.process in {f"{kind}-1" for kind in EXPLAINED}
        verdict = "; ".join(row.problems) or ("within bounds" if judged else "")
        lines.append(f"{row.process:20} {row.phase:8}{sizes} {growth}  {verdict}")
    allowed = ", ".join(f"{kind} {explained(kind) / MIB:.0f}" for kind in EXPLAINED)
    lines += ["", f"allowed above idle, MiB: {allowed}; allowed growth an hour: {GROWTH:.0%}"]
    lines += [f"queues {when}: {_counts(depths)}" for when, depths in outcome.queues.items()]
    lines += [f"PROBLEM: {problem}" for problem in outcome.problems]
    return "\n".join([*lines, f"clean: {'yes' if outcome.clean else 'NO'}"])


def _counts(depths: dict[str, int]) -> str:
    return ", ".join(f"{name} {count}" for name, count in sorted(depths.items())) or "empty"
