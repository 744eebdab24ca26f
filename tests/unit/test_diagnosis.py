"""What doctor concludes: every verdict of every check, each with a fix where something is to be done."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from config import load_settings
from dispatcher.core.diagnosis import CHECKS, Finding, Status, broker, database, exit_code, failed, fine, unchecked
from dispatcher.core.keys import KeyRecord
from dispatcher.core.topology import PARKED_LIMITS, PARTITIONS, REJECTED_LIMITS, Names
from dispatcher.services.doctor import Local
from dispatcher.services.doctor.run import longest_timeout
from schemas import PRIORITIES

PAGE = Path(__file__).parents[2] / "docs" / "doctor.md"
DAY = 86_400_000
NAMES = Names("p.")
ABLE = dict.fromkeys(broker.CAPABILITIES, True)

OK, WARNING, FAILED = Status.OK, Status.WARNING, Status.FAILED


def record(**fields: Any) -> KeyRecord:
    """A key of the app shop."""
    return KeyRecord(**({"id": "abc", "app": "shop", "hash": "0" * 64, "created_at": 0} | fields))


def consumed(**changed: int) -> dict[str, int]:
    """One consumer everywhere, but for what is changed (without prefix, dots as __)."""
    queues = [NAMES.intake, NAMES.history, NAMES.stray, *(NAMES.work_queue("default", p) for p in PRIORITIES)]
    queues += [NAMES.group(partition) for partition in range(PARTITIONS)]
    return dict.fromkeys(queues, 1) | {"p." + name.replace("__", "."): number for name, number in changed.items()}


EMPTY = dict.fromkeys([NAMES.unrouted, NAMES.intake_dead, NAMES.stray, NAMES.unrecorded], 0)

VERDICTS: list[tuple[Finding, Status, str]] = [
    (broker.broker_version("RabbitMQ", "3.10.8"), OK, "RabbitMQ 3.10.8"),
    (broker.broker_version("RabbitMQ", "4.0.5"), OK, "4.0.5"),
    (broker.broker_version("RabbitMQ", "3.9.29"), FAILED, "too old"),
    (broker.broker_version("RabbitMQ", "5.0.0"), WARNING, "newer"),
    (broker.broker_version("LavinMQ", "2.0.0"), WARNING, "LavinMQ"),
    (broker.broker_version("RabbitMQ", "unknown"), WARNING, "unknown"),
    (broker.broker_features("3.10.8", ABLE, True), OK, "at-least-once"),
    (broker.broker_features("3.10.8", ABLE, False), FAILED, "stream_queue"),
    (broker.broker_features("3.10.8", ABLE, None), WARNING, "not known"),
    (broker.broker_features("4.0.5", ABLE, None), OK, "at-least-once"),
    (broker.broker_features("4.0.5", ABLE | {"connection.blocked": False}, True), FAILED, "connection.blocked"),
    (broker.broker_accepts(0.0123, ""), OK, "12 ms"),
    (broker.broker_accepts(None, "low on disk"), FAILED, "low on disk"),
    (broker.broker_accepts(0.01, "low on memory"), FAILED, "low on memory"),
    (broker.broker_accepts(None, ""), FAILED, "does not confirm"),
    (broker.broker_accepts(None, "", "ACCESS_REFUSED - to q"), FAILED, "may not publish: ACCESS_REFUSED"),
    (broker.topology([], 64), OK, "64"),
    (broker.topology(["p.a", "p.b", "p.c", "p.d", "p.e"], 64), FAILED, "p.a, p.b, p.c and 2 more"),
    (broker.arguments({}, {}, 64), OK, "64 as declared"),
    (broker.arguments({"p.rejected": "inequivalent arg 'x-max-length'"}, {}, 64), FAILED, "x-max-length"),
    (broker.arguments({"p.jobs": "ACCESS_REFUSED - to p.jobs"}, {}, 64), FAILED, "may not declare p.jobs; of p.jobs"),
    (broker.arguments({}, {"p.rejected": "policy all: max-length=5"}, 64), WARNING, "max-length=5"),
    (broker.arguments({}, {}, 0), WARNING, "not checked"),
    (broker.delivery_limits({}, {}, 64), OK, "2147483647"),
    (broker.delivery_limits({"p.rejected": "inequivalent arg 'x-max-length'"}, {}, 64), OK, "2147483647"),
    (broker.delivery_limits({"p.intake.v1": "inequivalent arg 'x-delivery-limit'"}, {}, 64), FAILED, "p.intake.v1"),
    (broker.delivery_limits({}, {"p.intake.v1": "policy all: delivery-limit=20"}, 64), FAILED, "p.intake.v1"),
    (broker.delivery_limits({}, {}, 0), WARNING, "not checked"),
    (broker.routes(0.08, "", None), OK, "not listed"),
    (broker.routes(0.08, "", []), OK, "every binding exists"),
    (broker.routes(0.08, "", ["p.due.v1 to p.work"]), FAILED, "p.due.v1 to p.work"),
    (broker.routes(None, "nothing came out", None), FAILED, "nothing came out"),
    (broker.consumer_timeout(300, "worker.timeout", 1800, "3.10.8"), OK, "300 s"),
    (broker.consumer_timeout(1800, "the handler of a.b", 1800, "3.10.8"), WARNING, "closes the worker's channel"),
    (broker.consumer_timeout(3600, "the handler of a.b", 1800, "4.3.0"), WARNING, "cancels its consumer"),
    (broker.consumer_timeout(3600, "the handler of a.b", 1800, ""), WARNING, "the handler of a.b"),
    (broker.consumers(NAMES, ["default"], consumed()), OK, "every queue"),
    (broker.consumers(NAMES, ["default"], consumed(work__v1__default__low=0)), OK, "every queue"),
    (broker.consumers(NAMES, ["default"], consumed(intake__v1=0)), FAILED, "p.intake.v1"),
    (broker.consumers(NAMES, ["default"], consumed(history__v1=0, stray__v1=0)), FAILED, "p.history.v1, p.stray.v1"),
    (broker.consumers(NAMES, ["default"], consumed(group__v1__7=0)), FAILED, "p.group.v1.*"),
    (broker.consumers(NAMES, ["default", "slow"], consumed()), FAILED, "p.work.v1.slow.*"),
    (broker.strays(NAMES, EMPTY), OK, "nothing"),
    (broker.strays(NAMES, EMPTY | {NAMES.unrouted: 3}), FAILED, "3 messages in p.unrouted"),
    (broker.strays(NAMES, EMPTY | {NAMES.stray: 1}), FAILED, "1 messages in p.stray.v1"),
    (broker.strays(NAMES, {}), WARNING, "not checked"),
    (broker.unrecorded(NAMES, EMPTY), OK, "every event"),
    (broker.unrecorded(NAMES, EMPTY | {NAMES.unrecorded: 2}), FAILED, "2 messages in"),
    (broker.unrecorded(NAMES, EMPTY | {NAMES.unrecorded: 1}), FAILED, "1 message in"),
    (broker.unrecorded(NAMES, {}), WARNING, "not checked"),
    (broker.filling("rejected", 10, REJECTED_LIMITS, 3, "look"), OK, "10 of at most 100000, 3 in the last hour"),
    (broker.filling("rejected", 10, REJECTED_LIMITS, None, "look"), OK, "10 of at most 100000"),
    (broker.filling("rejected", 60_000, REJECTED_LIMITS, 0, "look"), WARNING, "14 days"),
    (broker.filling("rejected", 10, REJECTED_LIMITS, 400, "look"), WARNING, "400 in the last hour"),
    (broker.filling("parked", 10, PARKED_LIMITS, 400, "look"), OK, "400 in the last hour"),
    (broker.filling("parked", 10, PARKED_LIMITS, 2_000, "look"), WARNING, "30 days"),
    (broker.filling("parked", None, PARKED_LIMITS, 0, "look"), WARNING, "not checked"),
    (database.database_version("6.0.5"), OK, "6.0.5"),
    (database.database_version("5.0.1"), WARNING, "older"),
    (database.database_version("4.2.0"), FAILED, "too old"),
    (database.database_version("?"), WARNING, "?"),
    (database.replica_set("rs0", 3), OK, "rs0, 3 members"),
    (database.replica_set(None, 0), WARNING, "standalone"),
    (database.majority(0.02), OK, "20 ms"),
    (database.indexes([], 9), OK, "9"),
    (database.indexes(["jobs (accepted_at)"], 9), FAILED, "jobs (accepted_at)"),
    (database.clock(0.01, 0.002), OK, "0.010 s ahead of"),
    (database.clock(-2.0, 0.1), WARNING, "2.000 s behind"),
    (database.clock(60.0, 0.1), FAILED, "60.000 s ahead of"),
    (database.clock(3.0, 2.9), OK, "3.000 s ahead of"),
    (database.keys([record()], 0, 14), OK, "1 active"),
    (database.keys([], 0, 14), WARNING, "no active API key"),
    (database.keys([record(revoked=True)], 2, 14), WARNING, "no active API key"),
    (database.keys([record(expires_at=DAY)], 2 * DAY, 14), WARNING, "no active API key"),
    (database.keys([record(expires_at=15 * DAY)], 0, 14), OK, "1 active"),
    (database.keys([record(), record(id="soon", expires_at=3 * DAY)], 0, 14), WARNING, "first soon of app shop in 3.0"),
    (unchecked("keys", "MongoDB cannot be used"), WARNING, "not checked: MongoDB cannot be used"),
]


@pytest.mark.parametrize(("finding", "status", "message"), VERDICTS, ids=lambda value: str(getattr(value, "check", "")))
def test_each_verdict_says_what_is_and_what_to_do(finding: Finding, status: Status, message: str) -> None:
    """Its status, its sentence, and a fix exactly where something is to be done."""
    assert finding.status is status
    assert message in finding.message
    assert bool(finding.fix) == (status is not OK)
    assert finding.check in CHECKS


def local_findings() -> Iterator[Finding]:
    """Those about this machine."""
    yield from Local().findings()
    yield from Local(["/here/config.py"], "a:b", load_error="cannot import a").findings()
    yield from Local(["/here/schemas/__init__.py"], "a:b", {"x": None}).findings()


def test_a_right_that_lacks_is_mended_by_rights() -> None:
    """Declaring anew helps nobody who may not declare."""
    refusal = "ACCESS_REFUSED - access to exchange 'p.due.v1' in vhost '/' refused for user 'low'"
    found = broker.arguments({"p.jobs": refusal}, {}, 64), broker.routes(None, refusal, None)
    assert ["set_permissions" in finding.fix for finding in (*found, broker.broker_accepts(None, "", refusal))] == [
        True
    ] * 3
    assert broker.routes(None, "NOT_FOUND", None).fix == broker.APPLY


def test_what_is_on_this_machine_is_judged_too() -> None:
    """A module that hides ours is named, and so is what keeps a registry from being loaded."""
    found = [(f.check, f.status, f.fix) for f in local_findings()]
    assert found == [
        ("names", OK, ""),
        ("names", WARNING, "rename config, or put it inside a package of your own"),
        ("handlers", FAILED, "mend what it says; run the command in the folder of the module"),
        ("names", WARNING, "rename schemas, or put it inside a package of your own"),
        ("handlers", OK, ""),
    ]


def test_the_longest_timeout_is_a_handlers_or_the_configured_one() -> None:
    """Where a registry was named, its handlers count too."""
    settings = load_settings({})
    assert longest_timeout(settings, Local()) == (300, "worker.timeout")
    assert longest_timeout(settings, Local(handlers={"a.b": None, "c.d": 10})) == (300, "worker.timeout")
    assert longest_timeout(settings, Local(handlers={"a.b": 7200})) == (7200, "the handler of a.b")
    typed = load_settings({"DISPATCHER_TYPES": '{"report.*": {"timeout": 3600}, "mail.*": {"lane": "default"}}'})
    assert longest_timeout(typed, Local(handlers={"a.b": 10})) == (3600, "types.report.*.timeout")


def test_the_wanted_consumer_timeout_is_longer_than_the_handler() -> None:
    """In the broker's unit, milliseconds, and in ours."""
    fix = broker.consumer_timeout(3600, "x", 1800, "3.10.8").fix
    ms, seconds = map(int, re.findall(r"\b\d{4,}\b", fix))
    assert ms == seconds * 1000
    assert seconds > 3600


def test_only_a_failure_makes_the_exit_code() -> None:
    """Warnings leave it 0."""
    assert exit_code([fine("names", "x"), unchecked("keys", "y")]) == 0
    assert exit_code([fine("names", "x"), failed("keys", "y", "z")]) == 1
    assert exit_code([]) == 0


def test_the_page_has_every_check_in_order() -> None:
    """docs/doctor.md explains what doctor can say."""
    rows = re.findall(r"^\| `([a-z-]+)` \| ([^|]+) \|", PAGE.read_text(), re.MULTILINE)
    assert [(name, asked.strip()) for name, asked in rows] == list(CHECKS.items())
