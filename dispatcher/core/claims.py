"""Who has an id, or a unique key: what a claim that is found there means for the message that wants it.

Intake claims the id, or the key, of a message in MongoDB before it publishes the job, and marks the claim *done* once
the broker has confirmed that. What a ``kill -9`` in between leaves behind is a claim that is not done. The message
comes again then, and takes it over: it never becomes a duplicate of itself. Another message with the same id waits
meanwhile in the broker.

Claims are kept for a day. History is asked too, so that an id is known as long as its job is.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from enum import Enum
from typing import Any

from dispatcher.core.history import document_id
from dispatcher.core.lifecycle import FINAL
from schemas import JobState, Moved, Resent
from schemas.job import Until

#: A claim that is not done after so long has nobody any more who would do it, in milliseconds: its message is lost, or
#: waits elsewhere.
LEASE_MS = 30_000
#: How long a job without an id of its client's may take to reach history, in milliseconds. A message without one that
#: comes again is another job by then: if the first is not in history, it was not published.
RECORDED_MS = 5_000


@dataclass(frozen=True, slots=True)
class Claim:
    """A message's claim of an id or a unique key.

    ``name`` is what is claimed; ``job``, ``type``, ``lane``, ``priority`` and ``at`` (milliseconds since the epoch)
    say which job the message becomes; ``digest`` tells its content from another's. ``until`` and ``expires_at``
    (milliseconds since the epoch) belong to a unique key.
    """

    name: str
    job: str
    type: str
    lane: str
    priority: str
    at: int
    digest: str
    until: Until | None = None
    expires_at: int | None = None
    done: bool = False

    @property
    def app(self) -> str:
        """Whose it is; a name begins with it."""
        return self.name.partition(":")[0]

    @property
    def document(self) -> str:
        """The document id of the job."""
        return document_id(self.app, self.job)


class Found(Enum):
    """What a claim that is there already means for the message that wants it."""

    #: Nobody else has it: the message was here before, or who had it is gone.
    OURS = "ours"
    #: Somebody has it, and nobody can say yet what becomes of that.
    OPEN = "open"
    #: Another job has it.
    TAKEN = "taken"


def digest(routing_key: str, body: bytes) -> str:
    """What tells a message from others with the same id or unique key."""
    return hashlib.blake2b(routing_key.encode() + b"\0" + body, digest_size=8).hexdigest()


def judge_id(mine: Claim, held: Claim, now: int, again: bool) -> Found:
    """What a claim of the same id means.

    Args:
        mine: the claim that could not be made.
        held: the one that is there.
        now: milliseconds since the epoch.
        again: whether the message may have been here before.
    """
    if held.done:
        return Found.TAKEN
    if (again and held.digest == mine.digest) or now - held.at > LEASE_MS:
        return Found.OURS
    return Found.OPEN


def judge_key(mine: Claim, held: Claim, state: JobState | None, now: int, again: bool) -> Found:
    """What a claim of the same unique key means.

    Args:
        mine, held, now, again: as for `judge_id`.
        state: of the job that has the key, as far as history has heard of it.
    """
    if held.job == mine.job or now >= (held.expires_at or 0):
        return Found.OURS
    if state is None and not held.done:
        age = now - held.at
        lost = age > (RECORDED_MS if again and held.digest == mine.digest else LEASE_MS)
        return Found.OURS if lost else Found.OPEN
    return Found.OURS if _released(held.until, state) else Found.TAKEN


def _released(until: Until | None, state: JobState | None) -> bool:
    """Whether a job's end gives its key free before the window is over."""
    if state not in FINAL or until in (None, "window"):
        return False
    return until == "final" or state is not JobState.SUCCEEDED


def first_of(document: Mapping[str, Any]) -> Claim | None:
    """The claim that a job in history stands for; a refusal claims no id.

    Args:
        document: with ``id``, ``type``, ``lane``, ``priority``, ``state`` and ``accepted_at`` (milliseconds).
    """
    if document["state"] == JobState.REJECTED:
        return None
    same = {name: document[name] for name in ("type", "lane", "priority")}
    return Claim(document["_id"], document["id"], **same, at=document["accepted_at"], digest="", done=True)


def resent(first: Claim, now: int, mark: str) -> Resent:
    """What history hears of another message with the id of a job; ``mark`` tells it from every other."""
    return Resent(**_about(first), at=now, mark=mark)


def duplicate(claim: Claim, of: str, now: int) -> Moved:
    """How a job ends whose unique key is that of another job."""
    return Moved(**_about(claim), at=now, state=JobState.DUPLICATE, duplicate_of=of)


def _about(claim: Claim) -> dict[str, Any]:
    return {
        "app": claim.app,
        "id": claim.job,
        "type": claim.type,
        "lane": claim.lane,
        "priority": claim.priority,
        "accepted_at": claim.at,
    }
