"""What intake publishes for a message, ready to be sent: the job, or the refusal.

It is plain values, so that a message that may kill its process can be judged in another one.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from dispatcher.core import keys
from dispatcher.core.admission import Admitted, Rules, Submission, admit, encode_work
from dispatcher.core.claims import Claim, digest
from dispatcher.core.grouping import partition_of
from dispatcher.core.history import document_id
from dispatcher.core.refusals import Code, Refusal
from schemas.events import encode_event

#: A refused body over the size limit is cut to this many bytes.
CUT_BYTES = 65_536


@dataclass(frozen=True, slots=True)
class Job:
    """An accepted job: the work message and the event, encoded, and what intake has to know of them.

    ``partition``: where it waits for the others of its group, if it has one. What has to be its own before it is
    published: its id, where its client chose that, and its unique key.
    """

    id: str
    lane: str
    priority: str
    body: bytes
    headers: dict[str, str] | None
    event: bytes
    due_at: int | None = None
    partition: int | None = None
    id_claim: Claim | None = None
    key_claim: Claim | None = None


@dataclass(frozen=True, slots=True)
class Refused:
    """A refused message: why, and what is shown of its body; ``size`` is that of a body that is not shown whole."""

    refusal: Refusal
    body: bytes
    size: int | None = None


Verdict = Job | Refused


@dataclass(frozen=True, slots=True)
class Case:
    """A message to judge, with all that the verdict depends on; with a ``refusal`` only its body is to be shown."""

    submission: Submission
    key: keys.KeyRecord | None
    rules: Rules
    now: int
    random_bits: int
    refusal: Refusal | None = None


def judge(case: Case) -> Verdict:
    """The verdict on a message. Without a key there is a refusal already."""
    refusal = case.refusal
    if refusal is None:
        assert case.key is not None
        try:
            admitted = admit(case.submission, case.key, case.rules, case.now, case.random_bits)
            return accepted(admitted, case.submission)
        except Refusal as found:
            refusal = found
    return refused(refusal, case.submission, case.rules.max_body_bytes)


def accepted(admitted: Admitted, submission: Submission) -> Job:
    """An accepted job, encoded, with the claims that it needs.

    Raises:
        Refusal: ``too_large``, when it is written out.
    """
    work = admitted.work
    body, event = encode_work(work), encode_event(admitted.event)
    claim = key_claim = None
    if admitted.chosen or admitted.event.unique is not None:
        claim = Claim(
            document_id(work.app, work.id),
            work.id,
            work.type,
            work.lane,
            work.priority,
            work.accepted_at,
            digest(submission.routing_key, submission.body),
        )
    if claim is not None and (unique := admitted.event.unique) is not None:
        name = document_id(work.app, unique.key)
        key_claim = replace(claim, name=name, until=unique.until, expires_at=unique.expires_at)
    return Job(
        work.id,
        work.lane,
        work.priority,
        body,
        work.headers,
        event,
        work.due_at,
        partition_of(work),
        claim if admitted.chosen else None,
        key_claim,
    )


def refused(refusal: Refusal, submission: Submission, max_bytes: int) -> Refused:
    """A refusal, with the body as it may be shown: no key in it, and cut if it is over the limit."""
    body = submission.body
    if submission.size > max_bytes:
        return Refused(refusal, keys.redact(body[: 2 * CUT_BYTES])[:CUT_BYTES], submission.size)
    return Refused(refusal, keys.redact(body))


def crashed(sentence: str) -> Refusal:
    """The refusal of a message on which intake failed."""
    return Refusal(Code.CRASHED_INTAKE, sentence)
