"""Of the account of a run: one id, one document; of the jobs with one unique key one runs, and the others say so."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterator
from itertools import pairwise
from typing import TYPE_CHECKING, Any

from schemas import JobState
from tests.faults.plan import Job

if TYPE_CHECKING:
    from tests.faults.ledger import Evidence


def is_duplicate(job: Job, document: dict[str, Any]) -> bool:
    """Whether it is a job with a key that ended because another one has that."""
    return job.key is not None and document["state"] == JobState.DUPLICATE


def doubled(e: Evidence) -> list[str]:
    """Several documents of one job."""
    counts = Counter(doc["id"] for doc in e.documents)
    return [f"{job} has {count} documents" for job, count in counts.items() if count > 1]


def miscounted(e: Evidence) -> list[str]:
    """Jobs that say that they were sent again, though nobody did and nothing could be repeated; or not as often."""
    if any(fault.excuses for fault in e.faults) or e.published.unknown or e.published_again:
        return []
    told = sum(doc.get("resent", 0) for doc in e.documents)
    sent = e.published.sent_again
    return [] if told == sent else [f"{sent} messages were sent again, history says {told}"]


def false_duplicates(e: Evidence) -> list[str]:
    """Duplicates of no job, of one with another key, or of one that was never executed; or that were executed."""
    ran = {execution.job for execution in e.executions}
    found = []
    for job, doc in e.jobs():
        if doc["state"] != JobState.DUPLICATE:
            continue
        of = e.published.jobs.get(doc.get("duplicate_of") or "")
        if job.key is None or of is None or of.id == job.id or of.key != job.key or of.id not in e.by_id:
            found.append(f"{job.id} with {job.key} is a duplicate of {doc.get('duplicate_of')}")
        elif of.id not in ran:
            found.append(f"{job.id} is a duplicate of {of.id}, which was never executed")
        if job.id in ran:
            found.append(f"{job.id} is a duplicate and was executed")
    return found


def shared_keys(e: Evidence) -> list[str]:
    """Keys of which no job ran, or several: at the same time, or at all where the end of one gives nothing free."""
    holders: dict[str, list[Job]] = defaultdict(list)
    for job, doc in e.jobs():
        if job.key is not None:
            holders[job.key] += [] if is_duplicate(job, doc) else [job]
    found = []
    for key, jobs in holders.items():
        if not jobs:
            found.append(f"no job with {key} ran")
        elif len(jobs) > 1 and not jobs[0].exclusive:
            found.append(f"{len(jobs)} jobs with {key} ran: {' '.join(job.id for job in jobs)}")
        else:
            found += [f"{one} and {other}, with {key}, ran at the same time" for one, other in _together(e, jobs)]
    return found


def _together(e: Evidence, jobs: list[Job]) -> Iterator[tuple[str, str]]:
    """Jobs of which one began before the other had ended for the first time."""
    spans = []
    for job in jobs:
        executions = e.steps.get((job.id, 1, 1, 0), [])
        ends = [x.ended for x in executions if x.ended is not None]
        if ends:
            spans.append((min(x.started for x in executions), min(ends), job.id))
    for (_, ended, one), (began, _, other) in pairwise(sorted(spans)):
        if began < ended:
            yield one, other
