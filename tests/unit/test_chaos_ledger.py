"""The ledger of `make chaos`: of made-up runs, each kind of discrepancy is seen."""

from __future__ import annotations

import signal
from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest

from tests.faults.executions import Execution
from tests.faults.fleet import Death
from tests.faults.ledger import CHECKS, Evidence, Happened, Scrape, settle
from tests.faults.load import Published
from tests.faults.plan import Job, make_plan, plain_job
from tests.faults.transitions import Transitions

pytestmark = pytest.mark.unit

WORKER, INTAKE, OTHER = 100, 200, 300
KEY = {"key": "monthly", "for": 60, "until": "window"}
JOBS = [
    plain_job("plain"),
    *(make_plan(1, 5, weights={kind: 1})[0] for kind in ("flaky", "slow", "snooze", "hopeless")),
    plain_job("first", unique=KEY),
    plain_job("second", unique=KEY),
]
#: The id that the one with the key has; the other one is its duplicate.
FIRST = f"first-{len(JOBS) - 2}"


def runs(job: Job) -> bool:
    """Whether it is none."""
    return not job.id.startswith("second")


def executed(job: Job, *, worker: int = WORKER, at: float = 10.0) -> list[Execution]:
    """Each step once, two seconds apart, half a second long."""
    return [
        Execution((job.id, 1, step.n, step.k), f"{job.id}-{i}", worker, at + 2 * i, at + 2 * i + 0.5)
        for i, step in enumerate(job.steps)
    ]


def document(job: Job) -> dict[str, Any]:
    """As the recorder would have it."""
    attempts = [
        {"run": 1, "n": step.n, "execution": f"{job.id}-{i}", "outcome": step.outcome}
        for i, step in enumerate(job.steps)
    ]
    retries = len({step.n for step in job.steps if step.n > 1})
    doc = {"_id": f"chaos:{job.id}", "id": job.id, "app": "chaos", "type": job.type, "priority": job.priority, "run": 1}
    if not runs(job):
        return doc | {"state": "duplicate", "duplicate_of": FIRST, "attempts": []}
    return doc | {"state": job.state, "attempts": attempts} | ({"retries": retries} if retries else {})


def statistics(documents: list[dict[str, Any]]) -> dict[str, Any]:
    """As the command line would print them."""
    report: dict[str, Any] = {"by_type": {}, "by_priority": {}, "by_app": {}}
    total: Counter[str] = Counter(retries=0)
    for doc in documents:
        counts = Counter({doc["state"]: 1, "retries": doc.get("retries", 0)})
        total.update(counts)
        for field in ("type", "priority", "app"):
            report[f"by_{field}"].setdefault(doc[field], Counter(retries=0)).update(counts)
    groups = {
        name: {value: {**counts, "wait_ms": {"p50": 1.0}} for value, counts in group.items()}
        for name, group in report.items()
    }
    return {"total": dict(total), **groups}


def counters(jobs: list[Job]) -> list[Scrape]:
    """As one worker and one intake would count."""
    ran = [job for job in jobs if runs(job)]
    steps = [(job, step) for job in ran for step in job.steps]
    counted = Counter(("attempts", step.outcome) for _, step in steps)
    counted.update(("jobs_final", job.state) for job in ran)
    counted["retries", ""] = sum(step != job.last and step.outcome != "snoozed" for job, step in steps)
    return [Scrape("worker", WORKER, counted), Scrape("intake", INTAKE, Counter({("jobs_accepted", ""): len(jobs)}))]


def clean(jobs: list[Job] | None = None) -> Evidence:
    """A run in which nothing happened."""
    jobs = [replace(job, id=f"{job.id}-{i}") for i, job in enumerate(JOBS)] if jobs is None else jobs
    documents = [document(job) for job in jobs]
    ids = [job.id for job in jobs]
    return Evidence(
        published=Published({job.id: job for job in jobs}, dict.fromkeys(ids, 1.0), set(ids)),
        executions=[execution for job in jobs if runs(job) for execution in executed(job)],
        documents=documents,
        transitions=Transitions({doc["_id"]: (1, doc["state"]) for doc in documents}),
        statistics=statistics(documents),
        parked=[doc["id"] for doc in documents if doc["state"] in ("failed", "timed_out")],
        scrapes=counters(jobs),
    )


def found(evidence: Evidence) -> set[str]:
    """The checks that complain."""
    return {name for name, discrepancies in settle(evidence).items() if discrepancies}


def test_nothing() -> None:
    """A run without discrepancies is clean."""
    assert found(clean()) == set()


def again(e: Evidence, index: int = 0, *, ended: float | None = 20.5) -> Execution:
    """A second execution of a step, in another worker, known to history."""
    first = e.executions[index]
    second = Execution(first.step, f"{first.execution}-again", OTHER, 20.0, ended)
    e.executions.append(second)
    (doc,) = [doc for doc in e.documents if doc["id"] == first.job]
    (known,) = [attempt for attempt in doc["attempts"] if attempt["execution"] == first.execution]
    doc["attempts"].append(known | {"execution": second.execution} | ({} if ended else {"outcome": None}))
    return second


def fault(began: float, ended: float, *, excuses: bool = True, name: str = "kill worker") -> Happened:
    """A fault at a time."""
    return Happened(name, "worker-1", began, ended, excuses)


def _lose(e: Evidence) -> None:
    gone = e.documents.pop(0)
    e.executions = [x for x in e.executions if x.job != gone["id"]]
    e.statistics, e.scrapes = statistics(e.documents), []


def _waiting(e: Evidence) -> None:
    e.documents[0]["state"] = "queued"


def _stranger(e: Evidence) -> None:
    e.documents.append(document(plain_job("stranger")))


def _other_state(e: Evidence) -> None:
    e.documents[0]["state"] = "failed"


def _second_run(e: Evidence) -> None:
    e.documents[0]["run"] = 2


def _changed_final(e: Evidence) -> None:
    for state in ("succeeded", "failed", "succeeded"):
        change = {"operationType": "update", "documentKey": {"_id": "chaos:x"}}
        e.transitions.take(change | {"updateDescription": {"updatedFields": {"run": 1, "state": state}}})


def _stream_broke(e: Evidence) -> None:
    e.transitions.problem = "ChangeStreamHistoryLost"


def _lying_handler(e: Evidence) -> None:
    e.executions.pop(0)


def _unplanned(e: Evidence) -> None:
    step = (e.executions[0].job, 1, 7, 0)
    e.executions.append(Execution(step, "unplanned", OTHER, 20.0, 20.5))


def _unplanned_snooze(e: Evidence) -> None:
    job, run, n, k = e.executions[0].step
    e.executions.append(Execution((job, run, n, k + 1), "unplanned", OTHER, 20.0, 20.5))


def _too_soon(e: Evidence) -> None:
    index = next(i for i, x in enumerate(e.executions) if x.step[2:] == (2, 0))
    due = e.executions[index - 1].ended + e.published.jobs[e.executions[index].job].step(2, 0).after
    e.executions[index] = replace(e.executions[index], started=due - 0.002)


def _other_outcome(e: Evidence) -> None:
    e.documents[0]["attempts"][0]["outcome"] = "crashed"


def _unrecorded(e: Evidence) -> None:
    e.documents[0]["attempts"].clear()


def _open_attempt(e: Evidence) -> None:
    e.documents[0]["attempts"][0]["outcome"] = None


def _unfinished(e: Evidence) -> None:
    again(e, ended=None)


def _repeated(e: Evidence) -> None:
    again(e)


def _repeated_before_fault(e: Evidence) -> None:
    again(e)
    e.faults.append(fault(30.0, 31.0))


def _published_after_fault(e: Evidence) -> None:
    again(e)
    e.faults.append(fault(0.1, 0.5))


def _repeated_for_no_excuse(e: Evidence) -> None:
    again(e)
    e.faults.append(fault(5.0, 6.0, excuses=False))


def _wrong_total(e: Evidence) -> None:
    e.statistics["total"]["succeeded"] += 1


def _wrong_by_type(e: Evidence) -> None:
    e.statistics["by_type"]["chaos.plain"]["succeeded"] += 1


def _wrong_retries(e: Evidence) -> None:
    e.statistics["by_priority"]["normal"]["retries"] += 1


def _missing_app(e: Evidence) -> None:
    e.statistics["by_app"].clear()


def _not_parked(e: Evidence) -> None:
    e.parked.pop()


def _parked_wrongly(e: Evidence) -> None:
    e.parked.append(e.documents[0]["id"])


def _left(e: Evidence) -> None:
    e.leftovers["history.v1"] = 1


def _miscounted(e: Evidence) -> None:
    e.scrapes[0].counters["jobs_final", "succeeded"] += 1


def _miscounted_retries(e: Evidence) -> None:
    e.scrapes[0].counters["retries", ""] -= 1


def _accepted_twice(e: Evidence) -> None:
    e.scrapes[1].counters["jobs_accepted", ""] += 1


def _refused(e: Evidence) -> None:
    e.scrapes[1].counters["jobs_refused", "malformed"] += 1


def _died(e: Evidence) -> None:
    e.deaths.append(Death("recorder-1", 400, 15.0, ours=False, code=1))


@pytest.mark.parametrize(
    ("spoil", "check"),
    [
        (_lose, "lost"),
        (_waiting, "lost"),
        (_stranger, "unexpected"),
        (_other_state, "wrong final state"),
        (_second_run, "wrong final state"),
        (_changed_final, "two final states in a run"),
        (_stream_broke, "two final states in a run"),
        (lambda e: e.transitions.now.clear(), "two final states in a run"),
        (_lying_handler, "steps not executed"),
        (_lying_handler, "attempts that were not"),
        (_unplanned, "steps not planned"),
        (_unplanned_snooze, "steps not planned"),
        (_too_soon, "early"),
        (_other_outcome, "attempts that were not"),
        (_unrecorded, "ends not recorded"),
        (_open_attempt, "ends not recorded"),
        (_unfinished, "starts not ended"),
        (_repeated, "extra, unexplained"),
        (_repeated_before_fault, "extra, unexplained"),
        (_published_after_fault, "extra, unexplained"),
        (_repeated_for_no_excuse, "extra, unexplained"),
        (_wrong_total, "statistics that differ"),
        (_wrong_by_type, "statistics that differ"),
        (_wrong_retries, "statistics that differ"),
        (_missing_app, "statistics that differ"),
        (_not_parked, "parked that differ"),
        (_parked_wrongly, "parked that differ"),
        (_left, "left in queues"),
        (_miscounted, "metrics that differ"),
        (_miscounted_retries, "metrics that differ"),
        (_accepted_twice, "metrics that differ"),
        (_refused, "metrics that differ"),
        (_died, "ended by themselves"),
        (lambda e: e.notes.append("nothing moved for 60 s"), "noted by the harness"),
    ],
)
def test_discrepancy(spoil: Callable[[Evidence], None], check: str) -> None:
    """What was spoilt is reported by its check."""
    evidence = clean()
    spoil(evidence)
    assert check in found(evidence)


def test_every_check_was_seen_to_fail() -> None:
    """No check is without a case above, or in test_chaos_identity."""
    identity = {"ids with several documents", "sent again, miscounted", "false duplicates", "unique keys shared"}
    (mark,) = [mark for mark in test_discrepancy.pytestmark if mark.name == "parametrize"]  # type: ignore[attr-defined]
    assert {check for _, check in mark.args[1]} | identity == CHECKS.keys()


def test_explained() -> None:
    """An extra execution after a fault of its job's life is no discrepancy, and is counted to the nearest."""
    evidence = clean()
    extra = again(evidence)
    evidence.faults += [fault(5.0, 6.0, name="kill broker"), fault(12.0, 13.0), fault(15.0, 16.0, excuses=False)]
    assert found(evidence) == set()
    assert (evidence.explain(extra), evidence.phase(extra)) == ("kill worker", "ended")


@pytest.mark.parametrize(("began", "phase"), [(9.0, "not begun"), (10.2, "running"), (11.0, "ended")])
def test_phase(began: float, phase: str) -> None:
    """Where the first execution stood when the fault came."""
    evidence = clean()
    extra = again(evidence)
    evidence.faults.append(fault(began, began + 1))
    assert evidence.phase(extra) == phase


def test_unknown_publish() -> None:
    """A publish of which nothing was heard may be two; and may be none."""
    evidence = clean()
    extra = again(evidence)
    evidence.published.unknown.add(extra.job)
    evidence.published.acknowledged.discard(extra.job)
    assert found(evidence) == set()
    assert evidence.explain(extra) == "unknown publish"
    evidence = clean()
    evidence.published.attempted["unheard"] = 1.0
    evidence.published.unknown.add("unheard")
    assert found(evidence) == set()


def test_killed_process() -> None:
    """What a killed worker began need not have an end, nor what it ended a place in history."""
    evidence = clean()
    again(evidence, ended=None)
    evidence.documents[1]["attempts"].append({"run": 1, "n": 1, "execution": "lost-end", "outcome": None})
    first = evidence.executions[1]
    evidence.executions.append(Execution(first.step, "lost-end", OTHER, 12.0, 12.5))
    evidence.faults.append(fault(11.0, 13.0))
    evidence.deaths.append(Death("worker-2", OTHER, 13.0, ours=True))
    assert found(evidence) == set()


def test_poison() -> None:
    """A job that kills its process ends failed after attempts that crashed, and no service's death is a surprise."""
    (job,) = make_plan(1, 1, weights={"poison": 1})
    evidence = clean([job])
    evidence.executions = [replace(execution, ended=None) for execution in evidence.executions]
    evidence.deaths.append(Death("worker-1", WORKER, 10.1, ours=False, code=-signal.SIGKILL))
    evidence.poison = True
    assert found(evidence) == set()
    evidence.documents[0]["attempts"][0]["outcome"] = "failed"
    assert "attempts that were not" in found(evidence)


def test_only_workers_die_of_jobs() -> None:
    """Of a signal that the job sent; whatever else ends by itself is a surprise, poison or not."""
    evidence = clean()
    evidence.poison = True
    for member, code in (("intake-1", -9), ("worker-1", 1)):
        evidence.deaths = [Death(member, 7, 10.0, ours=False, code=code)]
        assert found(evidence) == {"ended by themselves"}
