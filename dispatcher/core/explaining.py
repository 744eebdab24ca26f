"""A job's place in sentences: where it is, why, what would move it on, and what an operator can do."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime

from dispatcher.core.advice import REFUSALS
from dispatcher.core.history import Document
from dispatcher.core.lifecycle import PARKED, RERUNNABLE, STATES
from dispatcher.core.moments import span
from dispatcher.core.outcome import NO_HANDLER
from dispatcher.core.refusals import Code
from dispatcher.core.text import counted, one_line
from schemas import JobState

#: A job that is later than this is late for a reason worth a sentence; in milliseconds.
LATE_MS = 10_000
#: Characters of an error's message that are shown.
MAX_MESSAGE = 300


@dataclass(frozen=True, slots=True)
class Explanation:
    """Sentences about a job, and the commands that can be run on it, each with what it does."""

    sentences: tuple[str, ...]
    commands: tuple[tuple[str, str], ...]


def explain(doc: Document, now: int) -> Explanation:
    """Explain a job's document at ``now``, in milliseconds since the epoch."""
    if doc["state"] is None:
        return Explanation(("History has heard of its attempts, but not yet of its acceptance.",), ())
    state = JobState(doc["state"])
    sentences = [_heading(doc, state), *_WHERE.get(state, _nothing)(doc, now), *_attempts(doc, state)]
    moved_by = STATES[state].moved_by
    sentences.append("Nothing moves it on." if moved_by == "nobody" else f"It is moved on by: {moved_by}.")
    return Explanation(tuple(sentences), tuple(_commands(doc, state)))


def _heading(doc: Document, state: JobState) -> str:
    run = f" (run {doc['run']})" if doc["run"] > 1 else ""
    return f"Job {doc['_id']} of type {doc['type']} is {state}{run}: {STATES[state].meaning}."


def _nothing(_: Document, __: int) -> list[str]:
    return []


def _queued(doc: Document, now: int) -> list[str]:
    waits = f"It was accepted {span(now - doc['accepted_at'])} ago and waits in work.v1.{doc['lane']}.{doc['priority']}"
    said = [f"{waits} for a worker of lane {doc['lane']} with a free slot; higher priorities start first."]
    if now - doc["accepted_at"] > LATE_MS:
        said.append("If that is long: see with `dispatcher top` whether the lane has consumers and how deep it is.")
    return said


def _buffered(doc: Document, now: int) -> list[str]:
    group = doc.get("group") or {"key": "?", "max_size": 0, "max_wait": 0.0}
    said = [
        f"It was accepted {span(now - doc['accepted_at'])} ago and waits for the others of its group "
        f'"{_short(group["key"])}": until there are {group["max_size"]}, or for {group["max_wait"]:g} s (what the '
        "group's first member asked for counts)."
    ]
    if now - doc["accepted_at"] > group["max_wait"] * 1000 + LATE_MS:
        said.append(
            "That is long over, so no intake gathers its group: see with `dispatcher doctor` whether one runs. Its "
            "members wait in group.v1.0 to group.v1.15."
        )
    return said


def _running(doc: Document, now: int) -> list[str]:
    open_ones = [a for a in doc["attempts"] if a["outcome"] is None and a["run"] == doc["run"]]
    if not open_ones:
        return ["The end of its attempt has not reached history yet."]
    attempt = open_ones[-1]
    said = [
        f"Attempt {attempt['n']} has run for {span(now - attempt['started_at'])} on worker {attempt['worker']}."
        f"{_timeout(doc)}"
    ]
    said.append("If that worker died, the broker gives the step to another, which runs the same attempt again.")
    return said


def _timeout(doc: Document) -> str:
    return f" Its timeout is {doc['timeout']:g} s an attempt." if doc.get("timeout") is not None else ""


def _waiting_for_time(doc: Document, now: int) -> list[str]:
    said = _error(doc, "Before that")
    if _unhandled(doc):
        said.append(
            f"A worker of lane {doc['lane']} needs a handler for each type that comes there: run one that has it, or "
            "give types whose handlers are apart lanes of their own."
        )
    due = doc.get("due_at")
    if due is None:
        return said
    if due > now:
        return [*said, f"It is due at {_time(due)}, in {span(due - now)}."]
    said.append(f"It was due at {_time(due)}, {span(now - due)} ago.")
    if now - due > LATE_MS:
        said.append(
            f"It has left the ladder for work.v1.{doc['lane']}.{doc['priority']}, most likely, and waits for a worker: "
            "see `dispatcher top`."
        )
    return said


def _dead(doc: Document, _: int) -> list[str]:
    said = [f"It ended at {_time(doc['finished_at'])} and was put into parked.v1.{doc['lane']}."]
    said += _error(doc, "Its last error")
    if _unhandled(doc):
        said.append(f"Run a worker that has a handler for {doc['type']} and serves lane {doc['lane']}, then replay it.")
    return said


def _unhandled(doc: Document) -> bool:
    return bool((doc.get("error") or {}).get("type") == NO_HANDLER)


def _ended(doc: Document, _: int) -> list[str]:
    said = [f"It ended at {_time(doc['finished_at'])}.", *_error(doc, "The reason")]
    if doc.get("duplicate_of") is not None:
        said.append(f"Job {doc['duplicate_of']} had its unique key then: one of the two is enough, said its client.")
    return said


def _rejected(doc: Document, _: int) -> list[str]:
    error = doc.get("error") or {"type": "", "message": ""}
    said = [f"Intake refused it at {_time(doc['accepted_at'])}: {error['type']}: {_short(error['message'])}."]
    if error["type"] in set(Code):
        said.append(f"What to do: {REFUSALS[Code(error['type'])]}.")
    return said


_WHERE: dict[JobState, Callable[[Document, int], list[str]]] = {
    JobState.BUFFERED: _buffered,
    JobState.QUEUED: _queued,
    JobState.RUNNING: _running,
    JobState.RETRYING: _waiting_for_time,
    JobState.SCHEDULED: _waiting_for_time,
    JobState.FAILED: _dead,
    JobState.TIMED_OUT: _dead,
    JobState.SUCCEEDED: _ended,
    JobState.CANCELLED: _ended,
    JobState.EXPIRED: _ended,
    JobState.DUPLICATE: _ended,
    JobState.REJECTED: _rejected,
}


def _error(doc: Document, what: str) -> list[str]:
    error = doc.get("error")
    if not error:
        return []
    message = f": {_short(error['message'])}" if error.get("message") else ""
    return [f"{what}: {error['type']}{message}."]


def _attempts(doc: Document, state: JobState) -> list[str]:
    """How many attempts the run has spent, and how many it may have, as far as the message says."""
    if state is JobState.REJECTED:
        return []
    spent = len({a["n"] for a in doc["attempts"] if a["run"] == doc["run"] and a["outcome"] not in (None, "snoozed")})
    allowed = (doc.get("retry") or {}).get("max_attempts")
    lost = sum(a["outcome"] is None for a in doc["attempts"]) - (state is JobState.RUNNING)
    said = [f"{counted(spent, 'attempt')} of this run ended; {_allowed(spent, allowed, state)}"] if spent else []
    if lost > 0:
        said.append(f"{counted(lost, 'execution')} never told an end: its worker died, was cut off, or gave it back.")
    return said


def _allowed(spent: int, allowed: int | None, state: JobState) -> str:
    if state in PARKED:
        return "no other follows, since they are used up or its error is not retried."
    if state in (JobState.RETRYING, JobState.SCHEDULED, JobState.RUNNING, JobState.QUEUED):
        if allowed is None:
            return "how many it may have stands in its handler, else in the setting retry.max_attempts."
        return f"its message allows {allowed}, so {counted(max(allowed - spent, 0), 'attempt')} at most are left."
    return "no other follows."


def _commands(doc: Document, state: JobState) -> list[tuple[str, str]]:
    name = doc["_id"]
    commands = [(f"dispatcher jobs show {name}", "its fields and every attempt")]
    if state in PARKED:
        commands.append((f"dispatcher dead replay {name}", "a new run from the parked message"))
    if state in RERUNNABLE:
        commands.append((f"dispatcher jobs retry {name}", "a new run from history"))
    if state in STATES and JobState.CANCELLED in STATES[state].to:
        commands.append((f"dispatcher watch {name}", "follow it until it ends"))
        commands.append((f"dispatcher jobs cancel {name}", "end it, wherever it is"))
    if state is JobState.REJECTED:
        commands.append(("dispatcher rejected list", "the refused messages themselves"))
    return commands


def _short(text: str) -> str:
    line = one_line(text).rstrip(".")
    return line if len(line) <= MAX_MESSAGE else line[: MAX_MESSAGE - 1] + "…"


def _time(ms: int | None) -> str:
    if ms is None:
        return "an unknown time"
    return datetime.fromtimestamp(ms / 1000, UTC).isoformat(timespec="seconds").replace("+00:00", "Z")
