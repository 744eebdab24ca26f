"""The ledger of a run, for people and as JSON."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Any

from tests.faults.ledger import interrupted
from tests.faults.run import Outcome

#: Discrepancies of one check that are shown.
SHOWN = 5


def figures(outcome: Outcome) -> dict[str, Any]:
    """Everything in the ledger as one JSON document."""
    e, scenario = outcome.evidence, outcome.scenario
    extras = Counter(e.explain(extra) or "unexplained" for extra in e.extras())
    faults = Counter(fault.name for fault in e.faults)
    return {
        "seed": scenario.seed,
        "jobs": scenario.jobs,
        "rate": scenario.rate,
        "clean": outcome.clean,
        "seconds": round(outcome.seconds, 1),
        "settled_after": round(outcome.settled_after, 1),
        "attempted": len(e.published.attempted),
        "acknowledged": len(e.published.acknowledged),
        "unknown": len(e.published.unknown),
        "unknown_recorded": len(e.published.unknown & e.by_id.keys()),
        "published_again": e.published_again,
        "sent_again": e.published.sent_again,
        "resent": sum(doc.get("resent", 0) for doc in e.documents),
        "with_key": sum(job.key is not None for job in e.published.jobs.values()),
        "accepted": e.accepted(),
        "faults": dict(sorted(faults.items())),
        "died_by_themselves": sum(not death.ours for death in e.deaths),
        "states": dict(Counter(doc["state"] for doc in e.documents)),
        "retries": sum(doc.get("retries", 0) for doc in e.documents),
        "executions": len(e.executions),
        "steps": len(e.steps),
        "interrupted": len(interrupted(e)),
        "extra": sum(extras.values()),
        "extra_by_fault": dict(extras),
        "extra_per_fault": {name: round(n / faults[name], 2) for name, n in extras.items() if faults[name]},
        "extra_first_was": dict(Counter(f"{e.explain(x)}: {e.phase(x)}" for x in e.extras())),
        "parked_twice": len(e.parked) - len(set(e.parked)),
        "discrepancies": {name: len(found) for name, found in outcome.discrepancies.items()},
        "examples": {name: found[:SHOWN] for name, found in outcome.discrepancies.items() if found},
    }


def show(outcome: Outcome) -> str:
    """The ledger for people."""
    f = figures(outcome)
    rows = [
        (
            "seed",
            f"{f['seed']}: {f['jobs']} jobs at {f['rate']:g}/s; {f['seconds']} s, settled after {f['settled_after']} s",
        ),
        ("published", f"{f['attempted']} attempted, {f['acknowledged']} acknowledged, {_unknown(f)}"),
        ("published again", f"{f['published_again']}; accepted by intake: {f['accepted'] or 'not known'}"),
        ("ids and keys", f"{f['sent_again']} sent again ({f['resent']} in history), {f['with_key']} with a unique key"),
        ("faults", _counts(f["faults"])),
        ("final states", _counts(f["states"])),
        ("retries", f["retries"]),
        ("executions", f"{f['executions']} of {f['steps']} steps, {f['interrupted']} interrupted"),
        ("extra executions", f"{f['extra']}: {_counts(f['extra_by_fault'])}"),
        ("extra a fault", _counts(f["extra_per_fault"])),
        ("  first execution was", _counts(f["extra_first_was"])),
        ("parked twice", f["parked_twice"]),
    ]
    rows += [(name, _found(found)) for name, found in outcome.discrepancies.items()]
    rows.append(("clean", "yes" if f["clean"] else "NO"))
    lines = [f"{name:26} {value}" for name, value in rows]
    return "\n".join(lines + ([] if f["clean"] else ["", *outcome.complaints]))


def table(outcomes: Sequence[Outcome]) -> str:
    """One line a run."""
    lines = ["seed     jobs  lost unexpected  two states  extra  unexplained  interrupted   faults  clean"]
    for outcome in outcomes:
        f = figures(outcome)
        d = f["discrepancies"]
        lines.append(
            f"{f['seed']:4} {f['jobs']:8} {d['lost']:5} {d['unexpected']:10} {d['two final states in a run']:11} "
            f"{f['extra']:6} {d['extra, unexplained']:12} {f['interrupted']:12} {sum(f['faults'].values()):8}  "
            f"{'yes' if f['clean'] else 'NO'}"
        )
    return "\n".join(lines)


def _unknown(f: dict[str, Any]) -> str:
    return f"{f['unknown']} unknown (of which {f['unknown_recorded']} in history)"


def _counts(counts: dict[str, Any]) -> str:
    return ", ".join(f"{name} {n}" for name, n in sorted(counts.items())) or "none"


def _found(found: Sequence[str]) -> str:
    return str(len(found)) + "".join(f"\n    {text}" for text in found[:SHOWN])
