"""A finding: one line of ``dispatcher doctor``, and the checks that there are."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from enum import StrEnum

#: Every check, in the order in which it is shown, and what it asks.
CHECKS = {
    "configuration": "the configuration can be loaded",
    "names": "the current folder has no module of a name that Job Dispatcher uses",
    "handlers": "the registry that was named can be loaded",
    "port": "the port of the probes is free, or a service of ours answers there",
    "broker": "RabbitMQ can be reached, with this user, password and virtual host",
    "broker-version": "RabbitMQ is one that is supported",
    "broker-features": "quorum queues dead-letter at least once",
    "broker-accepts": "RabbitMQ takes and confirms a message: no alarm blocks publishing",
    "topology": "every exchange and queue exists",
    "arguments": "every exchange and queue has the arguments that it is declared with, and no policy changes them",
    "delivery-limits": "no queue drops a message because it was delivered often",
    "routes": "the delay ladder leads back to the work queues",
    "consumer-timeout": "RabbitMQ waits longer for an acknowledgement than the longest handler runs",
    "consumers": "somebody consumes intake.v1, group.v1.*, history.v1, stray.v1 and the work queues of each lane",
    "strays": "unrouted, intake-dead.v1 and stray.v1 are empty",
    "unrecorded": "unrecorded.v1 is empty",
    "rejected": "rejected does not fill up",
    "parked": "the parked jobs do not fill up",
    "database": "MongoDB can be reached, with this user and password",
    "database-version": "MongoDB is one that is supported",
    "replica-set": "MongoDB is a replica set",
    "majority": "a write to the majority succeeds",
    "indexes": "every index exists as it is declared",
    "clock": "the clocks of this machine and of MongoDB agree",
    "keys": "there are API keys, and none expires soon",
}


class Status(StrEnum):
    """What a check found."""

    OK = "ok"
    WARNING = "warning"
    FAILED = "failed"


@dataclass(frozen=True, slots=True)
class Finding:
    """What a check found, and what to do about it ("" where nothing is to be done)."""

    check: str
    status: Status
    message: str
    fix: str = ""


def fine(check: str, message: str) -> Finding:
    """All is well."""
    return Finding(check, Status.OK, message)


def warning(check: str, message: str, fix: str) -> Finding:
    """It works, but not for long, or not under all circumstances."""
    return Finding(check, Status.WARNING, message, fix)


def failed(check: str, message: str, fix: str) -> Finding:
    """Something does not work."""
    return Finding(check, Status.FAILED, message, fix)


def unchecked(check: str, because: str) -> Finding:
    """What could not be asked is not known to be well."""
    return warning(check, f"not checked: {because}", "mend that first, then run dispatcher doctor again")


def exit_code(findings: Iterable[Finding]) -> int:
    """1 where something failed."""
    return int(any(finding.status is Status.FAILED for finding in findings))
