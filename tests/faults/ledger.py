"""The account of a run: everything that is known of it from outside, compared; and what does not fit.

Pure: values in, values out. Each check is a function that returns a sentence for each discrepancy; a run is clean
when none returns any.
"""

from __future__ import annotations

import math
import signal
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from itertools import pairwise
from typing import Any

from dispatcher.core.lifecycle import FINAL, PARKED
from tests.faults import identity
from tests.faults.executions import Execution, StepId, by_step
from tests.faults.fleet import Death
from tests.faults.load import Published
from tests.faults.plan import Job
from tests.faults.transitions import Transitions

#: What explains an extra execution where no fault does: a publish of which the publisher never heard.
UNKNOWN_PUBLISH = "unknown publish"
#: Seconds after the start of a `chaos.slow` in a child process from which on its worker has killed that, if it lives.
CUT_OFF = 0.5
#: Seconds by which the system's times, whole milliseconds, may be before those of the handlers.
MILLISECOND = 0.001


@dataclass(frozen=True, slots=True)
class Happened:
    """A fault: its name, on whom, from when to when (seconds since the epoch), whether steps may be repeated for it."""

    name: str
    target: str
    began: float
    ended: float
    excuses: bool


@dataclass(frozen=True, slots=True)
class Scrape:
    """The counters of a process that lives at the end, by short name and outcome, state or code ("" without)."""

    kind: str
    pid: int
    counters: Counter[tuple[str, str]]


@dataclass
class Evidence:
    """What was seen, each from its own source."""

    published: Published
    executions: list[Execution]
    documents: list[dict[str, Any]]
    transitions: Transitions = field(default_factory=Transitions)
    #: The document of ``dispatcher stats --json``.
    statistics: dict[str, Any] = field(default_factory=dict)
    #: Ids in ``parked.v1.*``, once for each message.
    parked: list[str] = field(default_factory=list)
    #: Messages left in queues that must be empty, by queue.
    leftovers: dict[str, int] = field(default_factory=dict)
    scrapes: list[Scrape] = field(default_factory=list)
    faults: list[Happened] = field(default_factory=list)
    deaths: list[Death] = field(default_factory=list)
    #: Processes that stopped in good order before the end.
    stopped: list[Death] = field(default_factory=list)
    #: Publishes that the publisher sent again because it never heard of them.
    published_again: int = 0
    #: What the harness itself saw go wrong.
    notes: list[str] = field(default_factory=list)
    #: Whether jobs that kill their process were published.
    poison: bool = False

    def __post_init__(self) -> None:
        """Take what ran out of time in a child process for ended: it is killed with that, and cannot write its end."""
        died = {death.pid: death.at for death in self.deaths}
        self.executions = [replace(x, ended=x.started) if self._cut_off(x, died) else x for x in self.executions]

    def _cut_off(self, x: Execution, died: Mapping[int, float]) -> bool:
        job = self.published.jobs.get(x.job)
        out_of_time = job is not None and job.type == "chaos.slow"
        return x.ended is None and x.in_child and out_of_time and died.get(x.worker, math.inf) - x.started > CUT_OFF

    @cached_property
    def by_id(self) -> dict[str, dict[str, Any]]:
        """The documents by id."""
        return {doc["id"]: doc for doc in self.documents}

    @cached_property
    def steps(self) -> dict[StepId, list[Execution]]:
        """The executions of each step."""
        return by_step(self.executions)

    @cached_property
    def dead(self) -> set[int]:
        """Processes that did not live to the end."""
        return {death.pid for death in self.deaths}

    def excused(self, execution: Execution) -> bool:
        """Whether the execution's process died, so that it may be unfinished, or unknown to history.

        A job that kills its process may run in a child of a worker, whose death nobody records but history.
        """
        job = self.published.jobs.get(execution.job)
        return execution.worker in self.dead or (job is not None and job.type == "chaos.poison")

    def jobs(self) -> Iterator[tuple[Job, dict[str, Any]]]:
        """Each published job that has a document, with it."""
        for job_id, job in self.published.jobs.items():
            if job_id in self.by_id:
                yield job, self.by_id[job_id]

    def accepted(self) -> int | None:
        """How many messages intake accepted; None where an intake ended with its count."""
        intakes = [scrape.counters for scrape in self.scrapes if scrape.kind == "intake"]
        if not intakes or any(d.member.startswith("intake") for d in [*self.deaths, *self.stopped]):
            return None
        return sum(counters["jobs_accepted", ""] for counters in intakes)

    def extras(self) -> list[Execution]:
        """Executions that ended although an earlier one of the same step did."""
        found = []
        for executions in self.steps.values():
            found += [e for e in executions if e.ended is not None][1:]
        return found

    def cause(self, extra: Execution) -> Happened | None:
        """The nearest fault before an extra execution that came after its job's publish, or None."""
        published = self.published.attempted.get(extra.job, 0.0)
        causes = [f for f in self.faults if f.excuses and f.began <= extra.started and f.ended >= published]
        return max(causes, key=lambda f: f.began, default=None)

    def explain(self, extra: Execution) -> str | None:
        """What an extra execution is counted to."""
        if cause := self.cause(extra):
            return cause.name
        return UNKNOWN_PUBLISH if extra.job in self.published.unknown else None

    def phase(self, extra: Execution) -> str:
        """Where the step's first complete execution stood when the fault came that explains the extra one."""
        cause = self.cause(extra)
        first = next(x for x in self.steps[extra.step] if x.ended is not None)
        if cause is None or first.started >= cause.began:
            return "not begun"
        return "running" if first.ended is None or first.ended >= cause.began else "ended"


def lost(e: Evidence) -> list[str]:
    """Acknowledged and without a document, or with one that is not final."""
    missing = sorted(e.published.acknowledged - e.by_id.keys())
    return missing + [f"{d['id']} is {d['state']}" for d in e.documents if d["state"] not in FINAL]


def unexpected(e: Evidence) -> list[str]:
    """Documents of jobs that nobody published."""
    return [f"{d['id']} {d['state']}" for d in e.documents if d["id"] not in e.published.attempted]


def wrong_state(e: Evidence) -> list[str]:
    """Another final state than the plan's, or a run that nobody started."""
    return [
        f"{job.id} {job.type} is {doc['state']} in run {doc['run']}"
        for job, doc in e.jobs()
        if (doc["state"], doc["run"]) != (job.state, 1) and not identity.is_duplicate(job, doc)
    ]


def two_final_states(e: Evidence) -> list[str]:
    """A run that was final and changed, or whose attempts would end it in two ways; or nobody could look."""
    found = list(e.transitions.violations)
    if e.transitions.problem:
        found.append(f"the log of writes: {e.transitions.problem}")
    for doc in e.documents:
        seen = e.transitions.now.get(doc["_id"])
        if seen != (doc["run"], doc["state"]):
            found.append(f"{doc['id']} is {doc['state']}, the log of writes says {seen}")
    return found


def wrong_attempts(e: Evidence) -> list[str]:
    """Attempts in history of which no handler knows, or that ended in another way than the plan's."""
    known = {execution.execution: execution for execution in e.executions}
    found = []
    for job, doc in e.jobs():
        for attempt in doc["attempts"]:
            execution = known.get(attempt["execution"])
            if execution is None:
                found.append(f"{job.id} attempt {attempt['n']} {attempt['execution']} was never executed")
                continue
            step = job.step(*execution.step[2:])
            if attempt["outcome"] is not None and (step is None or attempt["outcome"] != step.outcome):
                found.append(f"{job.id} attempt {attempt['n']} is {attempt['outcome']}, its step {step}")
    return found


def not_executed(e: Evidence) -> list[str]:
    """Steps of the plan whose handler never ended, of jobs in history."""
    ended = {s for s, executions in e.steps.items() if any(x.ended is not None for x in executions)}
    return [
        f"{job.id} {job.type} attempt {step.n} after {step.k} snoozes"
        for job, doc in e.jobs()
        for step in job.steps
        if not identity.is_duplicate(job, doc)
        if step.outcome != "crashed" and (job.id, 1, step.n, step.k) not in ended
    ]


def not_planned(e: Evidence) -> list[str]:
    """Executions of steps that the plan does not have."""
    found = []
    for job_id, run, n, k in e.steps:
        job = e.published.jobs.get(job_id)
        if job is None or run != 1 or job.step(n, k) is None:
            found.append(f"{job_id} run {run} attempt {n} after {k} snoozes")
    return found


def waits(e: Evidence) -> Iterator[tuple[Execution, float]]:
    """Each execution that had to wait, with the time for which: its delay after the first end of the step before."""
    for job, _ in e.jobs():
        for before, step in pairwise(job.steps):
            ends = [x.ended for x in e.steps.get((job.id, 1, before.n, before.k), ()) if x.ended is not None]
            for execution in e.steps.get((job.id, 1, step.n, step.k), ()) if ends else ():
                yield execution, min(ends) + step.after


def early(e: Evidence) -> list[str]:
    """Executions that began before their time."""
    return [
        f"{x.job} attempt {x.step[2]} after {x.step[3]} snoozes, by {due - x.started:.3f} s"
        for x, due in waits(e)
        if x.started < due - MILLISECOND
    ]


def unrecorded(e: Evidence) -> list[str]:
    """Executions that ended in a process that lives, and whose end history does not have."""
    recorded = {a["execution"] for doc in e.documents for a in doc["attempts"] if a["outcome"] is not None}
    return [
        f"{x.job} attempt {x.step[2]} {x.execution}"
        for x in e.executions
        if x.ended is not None and x.execution not in recorded and not e.excused(x)
    ]


def interrupted(e: Evidence) -> list[Execution]:
    """Executions that never ended."""
    return [x for x in e.executions if x.ended is None]


def unfinished(e: Evidence) -> list[str]:
    """Executions that never ended, although their process lives."""
    return [f"{x.job} attempt {x.step[2]} in {x.worker}" for x in interrupted(e) if not e.excused(x)]


def unexplained(e: Evidence) -> list[str]:
    """Extra executions for which there is no cause."""
    return [
        f"{x.job} attempt {x.step[2]} after {x.step[3]} snoozes at {x.started:.3f}"
        for x in e.extras()
        if e.explain(x) is None
    ]


def statistics_differ(e: Evidence) -> list[str]:
    """Statistics that are not those of the documents, by field."""
    expected: dict[str, dict[str, Counter[str]]] = defaultdict(lambda: defaultdict(Counter))
    for doc in e.documents:
        groups = [("total", ""), ("by_type", doc["type"]), ("by_priority", doc["priority"]), ("by_app", doc["app"])]
        for field_name, value in groups:
            expected[field_name][value] += Counter({doc["state"]: 1, "retries": doc.get("retries", 0)})
    found = []
    for name in ("total", "by_type", "by_priority", "by_app"):
        stated = e.statistics.get(name, {})
        given = {"": stated} if name == "total" else stated
        for value in sorted(expected[name].keys() | given.keys()):
            counts = {k: n for k, n in given.get(value, {}).items() if isinstance(n, int) and n}
            wanted = {k: n for k, n in expected[name][value].items() if n}
            if counts != wanted:
                found.append(f"{name} {value}: {counts}, the documents say {wanted}")
    return found


def parked_differ(e: Evidence) -> list[str]:
    """Parked jobs that are not those which ended failed or timed out."""
    wanted = {d["id"] for d in e.documents if d["state"] in PARKED}
    parked = set(e.parked)
    return [f"{j} is not parked" for j in sorted(wanted - parked)] + [f"{j} is parked" for j in sorted(parked - wanted)]


def left_over(e: Evidence) -> list[str]:
    """Messages in queues that should be empty."""
    return [f"{count} in {queue}" for queue, count in e.leftovers.items() if count]


def ended_by_itself(e: Evidence) -> list[str]:
    """Services that ended without being killed; a job that kills its process kills workers alone."""
    by_job = {d.pid for d in e.deaths if e.poison and d.member.startswith("worker") and d.code == -signal.SIGKILL}
    return [f"{d.member} ended with {d.code} at {d.at:.3f}" for d in e.deaths if not d.ours and d.pid not in by_job]


def metrics_differ(e: Evidence) -> list[str]:
    """Counters of the processes that live at the end, against what their handlers wrote and what history has."""
    workers = [difference for s in e.scrapes if s.kind == "worker" for difference in _worker_metrics(e, s)]
    return workers + _intake_metrics(e)


def _worker_metrics(e: Evidence, scrape: Scrape) -> list[str]:
    """A worker counts exactly what its own handlers wrote."""
    wanted: Counter[tuple[str, str]] = Counter()
    for x in e.executions:
        job = e.published.jobs.get(x.job)
        step = job.step(*x.step[2:]) if job else None
        if x.worker != scrape.pid or job is None or step is None or (x.ended is None and step.outcome != "crashed"):
            continue
        wanted["attempts", step.outcome] += 1
        wanted["jobs_final", job.state] += step == job.last
        wanted["retries", ""] += step != job.last and step.outcome != "snoozed"
    counted = Counter({key: n for key, n in scrape.counters.items() if key[0] in {"attempts", "jobs_final", "retries"}})
    return [
        f"{' '.join(key)} of {scrape.kind} {scrape.pid}: {counted[key]}, its handlers say {wanted[key]}"
        for key in sorted(counted.keys() | wanted.keys())
        if counted[key] != wanted[key]
    ]


def _intake_metrics(e: Evidence) -> list[str]:
    """What the living intakes accepted: every job, and doubles only where something may have been repeated."""
    counters = [s.counters for s in e.scrapes if s.kind == "intake"]
    refused = sum(n for counts in counters for (name, _), n in counts.items() if name == "jobs_refused")
    found = [f"{refused} refused"] if refused else []
    accepted, documents = e.accepted(), len(e.documents)
    doubles = any(fault.excuses for fault in e.faults)
    if accepted is not None and (accepted < documents or (accepted > documents and not doubles)):
        found.append(f"{accepted} accepted, {documents} documents")
    return found


#: Every check, by what the ledger calls it.
CHECKS: dict[str, Callable[[Evidence], Iterable[str]]] = {
    "lost": lost,
    "unexpected": unexpected,
    "wrong final state": wrong_state,
    "two final states in a run": two_final_states,
    "ids with several documents": identity.doubled,
    "sent again, miscounted": identity.miscounted,
    "false duplicates": identity.false_duplicates,
    "unique keys shared": identity.shared_keys,
    "steps not executed": not_executed,
    "steps not planned": not_planned,
    "early": early,
    "attempts that were not": wrong_attempts,
    "ends not recorded": unrecorded,
    "starts not ended": unfinished,
    "extra, unexplained": unexplained,
    "statistics that differ": statistics_differ,
    "parked that differ": parked_differ,
    "left in queues": left_over,
    "metrics that differ": metrics_differ,
    "ended by themselves": ended_by_itself,
    "noted by the harness": lambda e: e.notes,
}


def settle(evidence: Evidence) -> dict[str, list[str]]:
    """The discrepancies of each check."""
    return {name: list(check(evidence)) for name, check in CHECKS.items()}
