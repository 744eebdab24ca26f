"""What is new in a job's document since it was last looked at, in lines."""

from __future__ import annotations

from collections.abc import Iterator

from dispatcher.core.history import Document
from dispatcher.core.text import one_line


def news(before: Document | None, doc: Document) -> Iterator[tuple[int, str]]:
    """Lines with their times (milliseconds since the epoch), in the order in which it happened, as far as is known."""
    # by time alone: what has the same stays in the order in which it is told, a start before its end
    yield from sorted(_news(before, doc), key=lambda line: line[0])


def _news(before: Document | None, doc: Document) -> Iterator[tuple[int, str]]:
    known = {attempt["execution"]: attempt for attempt in (before or {}).get("attempts", ())}
    if before is None:
        yield doc["accepted_at"], f"accepted: {doc['type']} in lane {doc['lane']}, priority {doc['priority']}"
    for attempt in doc["attempts"]:
        name = f"run {attempt['run']}, attempt {attempt['n']}"
        old = known.get(attempt["execution"])
        if old is None:
            yield attempt["started_at"], f"{name} started on {attempt['worker']}"
        if attempt["outcome"] is not None and (old is None or old["outcome"] is None):
            yield attempt["finished_at"], f"{name} {attempt['outcome']}{_error(attempt)}"
    progress = doc.get("progress")
    if progress and progress != (before or {}).get("progress"):
        yield progress["at"], f"progress {progress_said(progress)}"
    if before is None or (before["state"], before["run"], before["seq"]) != (doc["state"], doc["run"], doc["seq"]):
        due = doc.get("due_at")
        last = max([doc["accepted_at"], *(a["finished_at"] or a["started_at"] for a in doc["attempts"])])
        yield doc["finished_at"] or last, f"state {doc['state']}" + (f", due in {_wait(due - last)}" if due else "")


def progress_said(progress: Document) -> str:
    """How far the handler said it has come, in one line."""
    done, total = progress["done"], progress.get("total")
    said = f"{done:g}" if total is None else f"{done:g} of {total:g}"
    if total:
        said += f" ({done / total:.0%})"
    return f"{said}: {one_line(progress['message'])}" if progress.get("message") else said


def _error(attempt: Document) -> str:
    error = attempt.get("error")
    if not error:
        return ""
    return f": {error['type']}: {one_line(error['message'])[:200]}"


def _wait(ms: int) -> str:
    return f"{max(ms, 0) / 1000:.1f} s"
