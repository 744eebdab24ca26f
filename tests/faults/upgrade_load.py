"""What `make upgrade` publishes: jobs of all kinds, and those that a version does not know only while all know them."""

from __future__ import annotations

import random
from collections.abc import Collection, Sequence
from dataclasses import replace
from typing import Any

from dispatcher import Client
from schemas import PRIORITIES
from tests.faults.ledger import Evidence
from tests.faults.load import Load
from tests.faults.plan import SHORT_LENGTHS, Job, Step, make_plan

#: Parts of the jobs that are of these kinds rather than of those of `make chaos`.
PARTS = {"child": 4, "thread": 4, "later": 4, "scheduled": 2, "expiring": 3, "group": 8, "other": 75}
#: Jobs that take turns in a group, and how many groups are open at a time.
OPEN_GROUPS = 5
#: A delay in the ladder and one in MongoDB, in seconds.
LATER, SCHEDULED = (0.5, 20.0), (61.0, 75.0)


def make_upgrade_plan(count: int, seed: int) -> list[Job]:
    """So many jobs, the kinds of `make chaos` among them; a job that kills its process is none of them."""
    rng = random.Random(f"upgrade {seed}")
    plan = make_plan(count, seed, lengths=SHORT_LENGTHS)
    kinds, parts = list(PARTS), list(PARTS.values())
    return [_other(job, rng.choices(kinds, parts)[0], index, rng) for index, job in enumerate(plan)]


def _other(job: Job, kind: str, index: int, rng: random.Random) -> Job:
    if kind == "other":
        return job
    once = (Step(1, 0, "succeeded"),)
    plain = replace(job, state="succeeded", steps=once, payload={"ms": rng.choice((1, 5, 20, 100))}, fields={})
    if kind == "group":
        return _member(plain, index, rng)
    fields: dict[str, dict[str, Any]] = {
        "later": {"delay": round(rng.uniform(*LATER), 3)},
        "scheduled": {"delay": round(rng.uniform(*SCHEDULED), 3)},
        "expiring": {"expires": 3600, "deadline": 60, "timeout": 30, "tags": ["upgrade"]},
    }
    own_type = f"chaos.{kind}" if kind in ("child", "thread") else "chaos.plain"
    return replace(plain, type=own_type, fields=fields.get(kind, {}))


def _member(job: Job, index: int, rng: random.Random) -> Job:
    """A member of one of the groups that are open now; all of a group have one priority."""
    turn = index // 200 * OPEN_GROUPS + rng.randrange(OPEN_GROUPS)
    group = {"key": f"g-{turn}", "max_size": 20, "max_wait": 3.0}
    failing = rng.random() < 0.1
    steps = (Step(1, 0, "failed"), Step(2, 0, "succeeded", 1.0)) if failing else job.steps
    payload = {**job.payload, "failures": int(failing)}
    fields = {"group": group, "retry": {"base": 1.0, "factor": 1.0}}
    priority = PRIORITIES[turn % len(PRIORITIES)]
    return replace(job, type="chaos.group", payload=payload, fields=fields, steps=steps, priority=priority)


def uses(job: Job, fields: Collection[str]) -> bool:
    """Whether a job has one of these fields; ``id``: whether it is sent twice with the same."""
    return any(name in fields for name in job.fields) or ("id" in fields and job.again is not None)


class SteadyLoad(Load):
    """Publishes until it is told to end; jobs with fields in `withheld` are left out meanwhile."""

    def __init__(self, client: Client, plan: Sequence[Job], rate: float, withheld: Collection[str]) -> None:
        super().__init__(client, plan, rate)
        self.withheld = frozenset(withheld)

    def _wants(self, job: Job) -> bool:
        return not uses(job, self.withheld)


def early_starts(e: Evidence) -> list[str]:
    """Jobs with a delay that were executed before its end."""
    found = []
    for execution in e.executions:
        job = e.published.jobs.get(execution.job)
        delay = job.fields.get("delay") if job is not None else None
        if delay and execution.started < e.published.attempted[execution.job] + delay - 0.001:
            found.append(f"{execution.job} with a delay of {delay} s")
    return found
