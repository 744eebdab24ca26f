"""Judgements about RabbitMQ and what lies in it."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from dispatcher.core.diagnosis.finding import Finding, failed, fine, unchecked, warning
from dispatcher.core.topology import DAY_MS, DELIVERY_LIMIT, PARTITIONS, Names
from schemas import PRIORITIES

APPLY = "run: dispatcher topology apply"
#: What the broker says where the user may not, and what mends it.
REFUSED = "ACCESS_REFUSED"
RIGHTS = "give its user all three rights: rabbitmqctl set_permissions -p VHOST USER '.*' '.*' '.*'"

#: The first version whose quorum queues dead-letter at least once, and the last minor version that was tried.
OLDEST, NEWEST = (3, 10), (4, 3)
CAPABILITIES = ("publisher_confirms", "exchange_exchange_bindings", "consumer_cancel_notify", "connection.blocked")
#: From this version on the feature flag is always on.
FLAG_ALWAYS_ON = (3, 12)
#: From this version on a consumer that is late is cancelled; before, its channel is closed.
CANCELS_THE_CONSUMER = (4, 3)
#: Names of at most so many things are shown.
SHOWN = 3


def version_of(text: str) -> tuple[int, int] | None:
    """Major and minor version."""
    match = re.match(r"(\d+)\.(\d+)", text)
    return (int(match[1]), int(match[2])) if match else None


def broker_version(product: str, text: str) -> Finding:
    """Whether we know how this version behaves."""
    check, version = "broker-version", version_of(text)
    shown = f"{product} {text}"
    if version is None or product != "RabbitMQ":
        return warning(check, f"the server calls itself {shown}", "use RabbitMQ 3.10 or newer")
    if version < OLDEST:
        sentence = f"{shown} is too old: its quorum queues do not dead-letter at least once"
        return failed(check, sentence, "upgrade RabbitMQ to 3.10 or newer")
    if version[0] > NEWEST[0]:
        return warning(check, f"{shown} is newer than what was tried", "read its release notes, or use RabbitMQ 4")
    return fine(check, shown)


def broker_features(text: str, capabilities: Mapping[str, Any], flag: bool | None) -> Finding:
    """Whether the broker can what we need; ``flag`` is the feature flag stream_queue, None where it is not known."""
    check = "broker-features"
    lacking = [name for name in CAPABILITIES if not capabilities.get(name)]
    if lacking:
        return failed(check, f"the server lacks {', '.join(lacking)}", "use RabbitMQ 3.10 or newer")
    version = version_of(text)
    if flag is None and not (version and version >= FLAG_ALWAYS_ON):
        sentence = "whether the feature flag stream_queue is enabled is not known"
        return warning(check, sentence, "run: rabbitmqctl list_feature_flags")
    if flag is False:
        sentence = "the feature flag stream_queue is disabled: dead-lettering falls back to at most once, and loses"
        return failed(check, sentence, "run: rabbitmqctl enable_feature_flag all")
    return fine(check, "confirms, returns, and at-least-once dead-lettering")


def broker_accepts(seconds: float | None, alarm: str, refusal: str = "") -> Finding:
    """Whether the broker took a message.

    Args:
        seconds: until it confirmed, or None.
        alarm: an alarm's reason.
        refusal: what the broker said, where it said something.
    """
    check = "broker-accepts"
    if alarm:
        return failed(
            check,
            f"an alarm blocks publishing: {alarm}",
            "give RabbitMQ memory or disk space, or raise its limits; publishing goes on by itself",
        )
    if REFUSED in refusal:
        return failed(check, f"the user may not publish: {refusal}", RIGHTS)
    if seconds is None:
        return failed(check, "RabbitMQ does not confirm a message", "look at RabbitMQ's log and its disk")
    return fine(check, f"confirmed after {seconds * 1000:.0f} ms")


def topology(missing: Sequence[str], number: int) -> Finding:
    """Whether all that is declared exists."""
    if missing:
        return failed("topology", f"missing: {_some(missing)}", APPLY)
    return fine("topology", f"{number} exchanges and queues")


def arguments(different: Mapping[str, str], policies: Mapping[str, str], compared: int) -> Finding:
    """Whether what exists is as declared. ``different``: the broker's sentence by name; ``policies``: by queue."""
    check = "arguments"
    refused = {name: sentence for name, sentence in different.items() if REFUSED in sentence}
    if refused:
        name, sentence = next(iter(refused.items()))
        return failed(check, f"the user may not declare {_some(list(refused))}; of {name}: {sentence}", RIGHTS)
    if different:
        name, sentence = next(iter(different.items()))
        return failed(
            check,
            f"declared otherwise: {_some(list(different))}; of {name} the broker says: {sentence}",
            "arguments of a name never change: empty and delete it, then dispatcher topology apply; or use another "
            "amqp.prefix",
        )
    if not compared:
        return unchecked(check, "nothing of it exists")
    if policies:
        sentence = f"a policy changes {_some(list(policies))}: {next(iter(policies.values()))}"
        return warning(check, sentence, "take the policy away from the queues of this installation")
    return fine(check, f"{compared} as declared")


def delivery_limits(different: Mapping[str, str], policies: Mapping[str, str], compared: int) -> Finding:
    """Whether a low limit could take messages away from the jobs that a crashed worker merely held."""
    check, what = "delivery-limits", "delivery-limit"
    low = [name for name, why in {**different, **policies}.items() if what in why]
    if low:
        return failed(
            check,
            f"another delivery limit than declared: {_some(low)}; messages that a dying worker held may be dropped",
            "take the policy away, or delete the queue and run dispatcher topology apply",
        )
    if not compared:
        return unchecked(check, "nothing of it exists")
    return fine(check, f"at most {DELIVERY_LIMIT} deliveries, as declared")


def routes(seconds: float | None, problem: str, missing: Sequence[str] | None) -> Finding:
    """Whether a message went through the ladder, and which bindings lack (None: they could not be listed)."""
    check = "routes"
    if problem:
        return failed(check, f"the delay ladder: {problem}", RIGHTS if REFUSED in problem else APPLY)
    if missing:
        return failed(check, f"bindings are missing: {_some(missing)}", APPLY)
    through = f"a message left the delay ladder after {(seconds or 0) * 1000:.0f} ms"
    if missing is None:
        return fine(check, f"{through}; the bindings were not listed (amqp.management_url is not set)")
    return fine(check, f"{through}; every binding exists")


def consumer_timeout(longest: float, longest_of: str, broker: float, text: str) -> Finding:
    """Whether the longest handler is done before the broker takes its message back."""
    check, version = "consumer-timeout", version_of(text)
    if longest < broker:
        return fine(check, f"the longest timeout is {longest:g} s ({longest_of}), RabbitMQ's {broker:g} s")
    does = "cancels its consumer" if version and version >= CANCELS_THE_CONSUMER else "closes the worker's channel"
    wanted = round(longest * 1.1 + 60) * 1000
    return warning(
        check,
        f"{longest_of} may run for {longest:g} s, but after {broker:g} s RabbitMQ {does}: the job runs again elsewhere",
        f"set consumer_timeout = {wanted} in rabbitmq.conf, restart RabbitMQ, and set amqp.consumer_timeout to "
        f"{wanted // 1000}",
    )


def consumers(names: Names, lanes: Iterable[str], found: Mapping[str, int]) -> Finding:
    """Whether every queue that somebody must consume is consumed; ``found``: consumers by queue."""
    missing: dict[str, str] = {}
    for queue, command in ((names.intake, "intake"), (names.history, "recorder"), (names.stray, "scheduler")):
        if not found.get(queue):
            missing[queue] = f"dispatcher run {command}"
    if not all(found.get(names.group(partition)) for partition in range(PARTITIONS)):
        missing[names.group("*")] = "dispatcher run intake"
    for lane in lanes:
        # a full worker may stop consuming one of them for a while, but not all
        if not any(found.get(names.work_queue(lane, priority)) for priority in PRIORITIES):
            missing[f"{names.work}.{lane}.*"] = "dispatcher worker MODULE:REGISTRY"
    if missing:
        return failed(
            "consumers", f"nobody consumes {', '.join(missing)}", f"run: {'; '.join(dict.fromkeys(missing.values()))}"
        )
    return fine("consumers", "every queue has its consumers")


def strays(names: Names, ready: Mapping[str, int]) -> Finding:
    """Whether messages lie where services should have taken them from at once."""
    queues = (names.unrouted, names.intake_dead, names.stray)
    if absent := [queue for queue in queues if queue not in ready]:
        return unchecked("strays", f"missing: {', '.join(absent)}")
    held = {queue: ready[queue] for queue in queues}
    if any(held.values()):
        return failed(
            "strays",
            ", ".join(f"{n} messages in {queue}" for queue, n in held.items() if n),
            "run intake and scheduler, which empty them; if more come: dispatcher topology apply",
        )
    return fine("strays", "nothing missed its way")


def unrecorded(names: Names, ready: Mapping[str, int]) -> Finding:
    """Whether MongoDB refused events."""
    number = ready.get(names.unrecorded)
    if number is None:
        return unchecked("unrecorded", f"missing: {names.unrecorded}")
    if number:
        return failed(
            "unrecorded",
            f"{number} message{'' if number == 1 else 's'} in {names.unrecorded}: history lacks these events",
            "run: dispatcher unrecorded list; when its cause is mended: dispatcher unrecorded readmit",
        )
    return fine("unrecorded", "history has every event")


def filling(check: str, ready: int | None, limits: Mapping[str, Any], last_hour: int | None, look: str) -> Finding:
    """Whether a queue that keeps what nobody wants loses something before its time.

    Args:
        check: the check's name.
        ready: messages in the fullest such queue; None where there is none.
        limits: its arguments.
        last_hour: how many came in the last hour, as history says; None where that is not known.
        look: the command that lists them.
    """
    if ready is None:
        return unchecked(check, "the queue is missing")
    most, hours = limits["x-max-length"], limits["x-message-ttl"] * 24 / DAY_MS
    recent = "" if last_hour is None else f", {last_hour} in the last hour"
    shown = f"{ready} of at most {most}{recent}"
    if ready > most / 2 or (last_hour or 0) * hours > most:
        return warning(check, f"{shown}: the oldest will go before they are {hours / 24:.0f} days old", f"run: {look}")
    return fine(check, shown)


def _some(names: Sequence[str]) -> str:
    """The first names of several, and how many there are."""
    shown = ", ".join(names[:SHOWN])
    more = len(names) - SHOWN
    return f"{shown} and {more} more" if more > 0 else shown
