"""What `make upgrade` tells, for people and as JSON."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING, Any

from tests.faults import phases

if TYPE_CHECKING:
    from tests.faults.upgrading import Account

#: Discrepancies of one check that are shown.
SHOWN = 5
_HEADER = (
    f"{'step':26}{'seconds':>8}{'stopped':>9}{'ready':>7}{'started/s':>11}{'wait ms: p50':>14}{'p99':>9}{'max':>9}"
)


def figures(account: Account) -> dict[str, Any]:
    """All of it as one JSON document; times in seconds, waits in milliseconds."""
    e = account.evidence
    return {
        **account.versions,
        "order": account.rehearsal.order,
        "early": account.rehearsal.early,
        "and_back": account.rehearsal.back and account.rehearsal.order == "documented",
        "withheld": account.withheld,
        "rate": account.rehearsal.rate,
        "seconds": round(account.seconds, 1),
        "clean": account.clean,
        "published": len(e.published.attempted),
        "acknowledged": len(e.published.acknowledged),
        "unknown": len(e.published.unknown),
        "sent_again": e.published.sent_again,
        "states": dict(Counter(doc["state"] for doc in e.documents)),
        "types": dict(Counter(doc["type"] for doc in e.documents)),
        "executions": len(e.executions),
        "steps_of_jobs": len(e.steps),
        "extra": len(e.extras()),
        "readmitted": account.readmitted,
        "steps": _steps(account),
        "discrepancies": {name: len(found) for name, found in account.discrepancies.items()},
        "examples": {name: found[:SHOWN] for name, found in account.discrepancies.items() if found},
    }


def _steps(account: Account) -> list[dict[str, Any]]:
    """Each step with how plain jobs, which wait for nothing, went on during it."""
    published = account.evidence.published
    plain = {
        job: at
        for job, at in published.attempted.items()
        if published.jobs[job].type == "chaos.plain" and not {"delay", "unique"} & published.jobs[job].fields.keys()
    }
    rows = []
    for step in account.steps:
        (row,) = phases.measure({step.name: step.began}, step.ended, plain, account.evidence.executions) or ({},)
        rows.append(
            {
                "step": step.name,
                "seconds": round(step.ended - step.began, 1),
                "stopped_after": round(step.stopped_after, 2),
                "ready_after": round(step.ready_after, 2),
                "code": step.code,
                "started_a_second": row.get("started_a_second"),
                "wait_ms": row.get("wait_ms", {}),
            }
        )
    return rows


def show(account: Account) -> str:
    """The same for people."""
    f = figures(account)
    withheld = ", ".join(f["withheld"]) or "none"
    counts = ", ".join(f"{name} {n}" for name, n in sorted(f["states"].items()))
    how = [f["order"], *(["and back"] if f["and_back"] else []), *(["new fields early"] if f["early"] else [])]
    lines = [
        f"old   {f['old']}",
        f"new   {f['new']}",
        f"order {', '.join(how)}; fields that the old version lacks: {withheld}",
        "",
        _HEADER,
        *map(_line, f["steps"]),
        "",
        f"{'published':26} {f['published']} ({f['unknown']} unknown), {f['sent_again']} sent again; {f['seconds']} s",
        f"{'final states':26} {counts}",
        f"{'executions':26} {f['executions']} of {f['steps_of_jobs']} steps, {f['extra']} extra",
        *([f"{'put back':26} {f['readmitted']}"] if f["readmitted"] else []),
        *(f"{name:26} {_found(found)}" for name, found in account.discrepancies.items()),
        f"{'clean':26} {'yes' if f['clean'] else 'NO'}",
    ]
    return "\n".join(lines + ([] if f["clean"] else ["", *account.complaints]))


def _line(row: dict[str, Any]) -> str:
    wait = row["wait_ms"] or dict.fromkeys(("p50", "p99", "max"), "")
    replaced = row["ready_after"] > 0
    stopped, is_ready = (row["stopped_after"], row["ready_after"]) if replaced else ("", "")
    rate = row["started_a_second"]
    return (
        f"{row['step'][:26]:26}{row['seconds']:>8}{stopped:>9}{is_ready:>7}{'' if rate is None else rate:>11}"
        f"{wait['p50']:>14}{wait['p99']:>9}{wait['max']:>9}"
    )


def _found(found: list[str]) -> str:
    return str(len(found)) + "".join(f"\n    {text}" for text in found[:SHOWN])
