"""Merging events into a job's document: idempotent, and right in any order of arrival.

A document is a plain dict with the fields of ``jobs`` in MongoDB, its times as milliseconds (the MongoDB edge turns
them into dates). `merge` never changes its argument; what it returns equals it when the events say nothing new,
so a redelivered batch writes nothing.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from dispatcher.core.lifecycle import FINAL, place, supersedes
from schemas import Accepted, Ended, Event, JobState, Moved, Progressed, Refused, Rerun, Resent, Started

Document = dict[str, Any]

FORMAT_VERSION = 1
#: So many of the messages that were sent again are told apart, so that an event that comes twice counts once.
MARKS = 100


def document_id(app: str, job_id: str) -> str:
    """``_id`` of a job's document: one app, one id, one job."""
    return f"{app}:{job_id}"


def merge(document: Document | None, events: Iterable[Event]) -> Document:
    """The document after these events about one job.

    Args:
        document: what is stored now, or None.
        events: at least one, all of the document's job.
    """
    doc: Document = dict(document) if document else {}
    for event in events:
        _MERGERS[type(event)](doc, event)
    _derive(doc)
    return doc


def _identify(doc: Document, event: Any) -> None:
    """Set what every event knows, the first time; the first stands.

    A refusal claims no id, though a client is told one and may use it: the job takes the place of its document.
    """
    if "_id" in doc and doc["lane"] is not None:
        return
    rev = doc.get("rev", 0)
    doc.clear()
    doc.update(
        _id=document_id(event.app, event.id),
        v=FORMAT_VERSION,
        rev=rev,
        app=event.app,
        id=event.id,
        run=event.run,
        seq=0,
        type=event.type,
        lane=event.lane,
        priority=event.priority,
        state=None,
        accepted_at=event.accepted_at,
        finished_at=None,
        attempts=[],
    )


def _accepted(doc: Document, event: Accepted) -> None:
    _identify(doc, event)
    if "key_id" not in doc:
        doc.update(key_id=event.key_id, tags=list(event.tags))
        doc.update(_recorded(event))
        if event.timeout is not None:
            doc["timeout"] = event.timeout
        if event.retry is not None:
            doc["retry"] = event.retry.model_dump(exclude_none=True)
        if event.unique is not None:
            doc["unique"] = event.unique.model_dump()
        if event.trace is not None:
            doc["trace"] = event.trace.model_dump(exclude_none=True)
        # the time for which the client asked
        times = {"run_at": event.due_at, "expires_at": event.expires_at, "deadline_at": event.deadline_at}
        # for what an operator asked later stands
        doc.update({name: value for name, value in times.items() if value is not None and name not in doc})
    if event.group is not None and "group" not in doc:
        doc["group"] = event.group.model_dump()
    at_once = JobState.QUEUED if event.group is None else JobState.BUFFERED
    state = at_once if event.due_at is None else JobState.SCHEDULED
    _move(doc, state, event.run, event.seq, event.due_at)


def _recorded(event: Accepted) -> Document:
    """The payload, as far as the configuration of its type lets history have it, and what says that it is not all."""
    if event.payload is None:
        return {"payload_omitted": True}
    return {"payload": event.payload, "redacted": True} if event.redacted else {"payload": event.payload}


def _started(doc: Document, event: Started) -> None:
    _identify(doc, event)
    _join(doc, _attempt(event))
    _move(doc, JobState.RUNNING, event.run, event.seq)


def _progressed(doc: Document, event: Progressed) -> None:
    _identify(doc, event)
    if event.run >= doc["run"]:
        told = event.model_dump(include={"run", "n", "execution", "at", "done", "total", "message"}, exclude_none=True)
        doc["progress"] = max(told, doc.get("progress", told), key=_lateness)
    _move(doc, JobState.RUNNING, event.run, event.seq)


def _lateness(progress: Document) -> tuple[Any, ...]:
    """What orders reports of progress: attempt and time, then anything that tells them apart."""
    rest = progress["done"], progress.get("total", progress["done"]), progress.get("message", "")
    return (progress["run"], progress["n"], progress["at"], progress["execution"], *rest)


def _ended(doc: Document, event: Ended) -> None:
    _identify(doc, event)
    entry = _attempt(event)
    entry.update(finished_at=event.finished_at, outcome=str(event.outcome))
    if event.error is not None:
        entry["error"] = event.error.model_dump(exclude_none=True)
    _join(doc, entry)
    # a job that was put off waits for its next step
    seq = event.seq if event.state in FINAL else event.seq + 1
    if _move(doc, event.state, event.run, seq, event.due_at, entry.get("error")):
        if event.state in FINAL:
            doc["finished_at"] = event.finished_at
        if event.state is JobState.SUCCEEDED:
            doc["result"] = event.result


def _moved(doc: Document, event: Moved) -> None:
    _identify(doc, event)
    seq = event.seq if event.state in FINAL else event.seq + 1
    error = event.error.model_dump(exclude_none=True) if event.error else None
    by_hand = _said_last(doc, event)
    if _move(doc, event.state, event.run, seq, event.due_at, error, by_hand) and event.state in FINAL:
        doc["finished_at"] = event.at
    if event.batch is not None:  # after a crash there may be two: the same one must be shown whichever came first
        doc["batch"] = min(event.batch, doc.get("batch", event.batch))
    if event.duplicate_of is not None:
        doc["duplicate_of"] = event.duplicate_of
    if by_hand:
        doc.update(run_at=event.due_at, rescheduled={"run": event.run, "seq": event.seq, "at": event.at})


def _said_last(doc: Document, event: Moved) -> bool:
    """Whether this is an operator's move of a job that waits, and none that is known was said after it."""
    if not event.by_hand or event.due_at is None:
        return False
    known = doc.get("rescheduled")
    if known is None:
        return True
    last: tuple[int, ...] = (known["run"], known["seq"], known["at"], doc["run_at"])
    return (event.run, event.seq, event.at, event.due_at) >= last


def _rerun(doc: Document, event: Rerun) -> None:
    _identify(doc, event)
    _move(doc, JobState.QUEUED, event.run, event.seq)


def _resent(doc: Document, event: Resent) -> None:
    _identify(doc, event)
    if event.mark not in (marks := doc.get("resent_marks", [])):
        doc.update(resent=doc.get("resent", 0) + 1, resent_marks=[*marks, event.mark][-MARKS:])
    if doc["state"] is None:  # its acceptance is under way, and says more
        _move(doc, JobState.QUEUED, event.run, 0)


def _refused(doc: Document, event: Refused) -> None:
    if "_id" in doc:
        return
    doc.update(
        _id=document_id(event.app, event.id),
        v=FORMAT_VERSION,
        rev=0,
        app=event.app,
        id=event.id,
        run=1,
        seq=0,
        type=event.type,
        lane=None,
        priority=None,
        state=str(JobState.REJECTED),
        key_id=event.key_id,
        attempts=[],
        accepted_at=event.at,
        finished_at=event.at,
        error={"type": event.code, "message": event.message},
    )


_MERGERS: dict[type, Any] = {
    Accepted: _accepted,
    Started: _started,
    Progressed: _progressed,
    Ended: _ended,
    Moved: _moved,
    Rerun: _rerun,
    Resent: _resent,
    Refused: _refused,
}


def _attempt(event: Started | Ended) -> Document:
    batch = {} if event.batch is None else {"batch": event.batch}
    return {
        **batch,
        "run": event.run,
        "n": event.n,
        "execution": event.execution,
        "started_at": event.started_at,
        "finished_at": None,
        "outcome": None,
        "worker": event.worker,
    }


def _join(doc: Document, entry: Document) -> None:
    """Put an execution into its place; an end completes a start, and a late start adds nothing to an end."""
    others = []
    for known in doc["attempts"]:
        if known["execution"] != entry["execution"]:
            others.append(known)
        elif known["outcome"] is not None:
            entry = known
    others.append(entry)
    if len(others) > 1:
        others.sort(key=lambda a: (a["run"], a["n"], a["started_at"], a["execution"]))
    doc["attempts"] = others


def _move(
    doc: Document,
    state: JobState,
    run: int,
    seq: int,
    due_at: int | None = None,
    error: Document | None = None,
    by_hand: bool = False,
) -> bool:
    """Move the state, with the due time and error of its step, if it supersedes the recorded one; whether it did.

    ``by_hand``: an operator gave the step its time, and nothing is known that was said later.
    """
    old = JobState(doc["state"]) if doc["state"] is not None else None
    if not supersedes(state, run, seq, old, doc["run"], doc["seq"]):
        if old is None or run != doc["run"] or {state, old} & FINAL or place(state, seq) != place(old, doc["seq"]):
            return False
        # two reports of one place, which a forked run has: the same one must be shown whichever came first
        sooner = _urgency(state, due_at, error) < _urgency(old, doc.get("due_at"), doc.get("error"))
        if not by_hand and (_was_moved(doc) or not sooner):
            return False
    if run != doc["run"]:
        doc.pop("result", None)
        doc["finished_at"] = None
        if doc.get("progress", {}).get("run") != run:
            doc.pop("progress", None)
    doc.update(state=str(state), run=run, seq=seq)
    # what an earlier step said goes, whichever of the two events came first
    for name, value in (("due_at", due_at), ("error", error)):
        doc.pop(name, None)
        if value is not None:
            doc[name] = value
    return True


def _was_moved(doc: Document) -> bool:
    """Whether the step that the job waits for has its time from an operator."""
    known = doc.get("rescheduled")
    return known is not None and (known["run"], known["seq"] + 1) == (doc["run"], doc["seq"])


def _urgency(state: JobState, due_at: int | None, error: Document | None) -> tuple[Any, ...]:
    """What orders two waits for the same step: the one that is over first, then anything that tells them apart."""
    return due_at or 0, str(state), sorted((error or {}).items())


def _derive(doc: Document) -> None:
    """Figures that statistics group by: a pure function of the attempts.

    ``retries`` counts attempts after the first of each run; ``wait_ms`` is acceptance, or the time for which the
    client asked, to the first start; ``run_ms`` is the length of the latest finished execution. ``breached`` says that
    the job finished after its deadline.
    """
    deadline, finished = doc.get("deadline_at"), doc.get("finished_at")
    doc.pop("breached", None)
    if deadline is not None and finished is not None and finished > deadline:
        doc["breached"] = True
    attempts = doc["attempts"]
    if not attempts:
        return
    doc["retries"] = len({(a["run"], a["n"]) for a in attempts if a["n"] > 1})
    if not doc["retries"]:
        del doc["retries"]
    first = min(a["started_at"] for a in attempts)
    doc["wait_ms"] = max(first - doc.get("run_at", doc["accepted_at"]), 0)
    for attempt in reversed(attempts):
        if attempt["finished_at"] is not None:
            doc["run_ms"] = max(attempt["finished_at"] - attempt["started_at"], 0)
            break
