"""Every exchange, queue and binding by name, as values. Arguments of a name never change (the broker refuses that).

All queues are durable quorum queues. Their delivery limit is the highest the broker takes: a crash counts for every
message that was held, so a low limit would bury innocents.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, Literal

from dispatcher.core import ladder
from schemas import PRIORITIES

DELIVERY_LIMIT = 2**31 - 1
#: Largest body that RabbitMQ takes by default from 4.0 on. It closes the channel of a publisher that sends more: one
#: such message would be sent again for ever, and hold up all others.
MAX_MESSAGE_BYTES = 16 << 20
DAY_MS = 86_400_000

#: ``rejected`` and ``parked`` hold at most this many messages and bytes (then the oldest go) and this long.
REJECTED_LIMITS = {
    "x-max-length": 100_000,
    "x-max-length-bytes": 1 << 30,
    "x-overflow": "drop-head",
    "x-message-ttl": 14 * DAY_MS,
}
PARKED_LIMITS = {
    "x-max-length": 1_000_000,
    "x-max-length-bytes": 8 << 30,
    "x-overflow": "drop-head",
    "x-message-ttl": 30 * DAY_MS,
}
#: Queues of members that wait for the others of their group; changing it would split groups.
PARTITIONS = 16
#: How long intake puts off a message that it cannot judge while MongoDB is away.
DEFER_MS = 2_000


@dataclass(frozen=True, slots=True)
class Exchange:
    """An exchange to declare, durable."""

    name: str
    type: Literal["topic", "direct", "fanout"]
    arguments: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Queue:
    """A durable quorum queue to declare, with its arguments complete."""

    name: str
    arguments: dict[str, Any]


@dataclass(frozen=True, slots=True)
class Binding:
    """A binding from an exchange to a queue or to another exchange."""

    source: str
    destination: str
    routing_key: str = ""
    to_exchange: bool = False


@dataclass(frozen=True, slots=True)
class Topology:
    """Everything to declare, in an order that works."""

    exchanges: tuple[Exchange, ...]
    queues: tuple[Queue, ...]
    bindings: tuple[Binding, ...]


@dataclass(frozen=True)
class Names:
    """Every name, with the configured prefix put before it."""

    prefix: str = ""

    def __getattr__(self, attribute: str) -> str:
        try:
            return self.prefix + _PLAIN[attribute]
        except KeyError:
            raise AttributeError(attribute) from None

    def work_queue(self, lane: str, priority: str) -> str:
        """A lane's queue of one priority."""
        return f"{self.prefix}work.v1.{lane}.{priority}"

    def parked(self, lane: str) -> str:
        """A lane's dead letters: jobs that ended failed or timed out."""
        return f"{self.prefix}parked.v1.{lane}"

    def suspect(self, lane: str) -> str:
        """A lane's steps whose worker died again and again; each is run in a process of its own."""
        return f"{self.prefix}suspect.v1.{lane}"

    def group(self, partition: int | str) -> str:
        """The queue of one part of the groups; whoever consumes it holds the members that it delivers."""
        return f"{self.prefix}group.v1.{partition}"

    def delay(self, level: int) -> str:
        """The queue of one level of the delay ladder."""
        return f"{self.prefix}delay.v1.{level:02d}"

    def after(self, level: int) -> str:
        """The exchange to which a level's queue hands on what it held long enough."""
        return f"{self.prefix}after.v1.{level:02d}"

    @cached_property
    def own_queues(self) -> tuple[str, ...]:
        """Beginnings of names that are ours: a reply never goes there."""
        return tuple(self.prefix + name for name in _OWN)


_PLAIN = {
    "jobs": "jobs",
    "intake": "intake.v1",
    "intake_dead": "intake-dead.v1",
    "intake_deferred": "intake-deferred.v1",
    "rejected": "rejected",
    "unrouted": "unrouted",
    "work": "work.v1",
    "delays": "delay.v1",
    "due": "due.v1",
    "scheduled": "scheduled.v1",
    "stray": "stray.v1",
    "history": "history.v1",
    "unrecorded": "unrecorded.v1",
    "peers": "peers.v1",
}
_OWN = (
    "intake",
    "rejected",
    "unrouted",
    "work.",
    "parked.",
    "delay.",
    "after.",
    "due.",
    "scheduled.",
    "stray.",
    "suspect.",
    "group.",
    "history.",
    "unrecorded.",
    "peers.",
    "jobs",
)


#: Stands for the lane in the routing key of a group's member on its way through the ladder; it is the name of none.
GROUPS = "~group"


def work_key(lane: str, priority: str) -> str:
    """Routing key on the exchange ``work.v1``."""
    return f"{lane}.{priority}"


def build(names: Names, lanes: Iterable[str]) -> Topology:
    """The whole topology of an installation."""
    lanes = tuple(lanes)
    exchanges = [*_fixed_exchanges(names), *_ladder_exchanges(names)]
    queues = [*_fixed_queues(names), *_ladder_queues(names)]
    bindings = [*_fixed_bindings(names), *_ladder_bindings(names)]
    for partition in range(PARTITIONS):
        name = names.group(partition)
        queues.append(Queue(name, _never_dropping(names.stray, {"x-single-active-consumer": True})))
        bindings.append(Binding(names.due, name, ladder.due_pattern(GROUPS, str(partition))))
    for lane in lanes:
        queues.append(Queue(names.parked(lane), _quorum(PARKED_LIMITS)))
        queues.append(Queue(names.suspect(lane), _never_dropping(names.stray)))
        for priority in PRIORITIES:
            name = names.work_queue(lane, priority)
            queues.append(Queue(name, _never_dropping(names.stray)))
            bindings.append(Binding(names.work, name, work_key(lane, priority)))
            bindings.append(Binding(names.due, name, ladder.due_pattern(lane, priority)))
    return Topology(tuple(exchanges), tuple(queues), tuple(bindings))


def _quorum(extra: dict[str, Any] | None = None) -> dict[str, Any]:
    return {"x-queue-type": "quorum", "x-delivery-limit": DELIVERY_LIMIT, **(extra or {})}


def _never_dropping(dead_letter_exchange: str, extra: dict[str, Any] | None = None) -> dict[str, Any]:
    """At-least-once dead-lettering; with another overflow than reject-publish the broker silently falls back."""
    return _quorum(
        {
            "x-dead-letter-exchange": dead_letter_exchange,
            "x-dead-letter-strategy": "at-least-once",
            "x-overflow": "reject-publish",
            **(extra or {}),
        }
    )


def _fixed_exchanges(names: Names) -> Iterator[Exchange]:
    yield Exchange(names.unrouted, "fanout")
    yield Exchange(names.jobs, "topic", {"alternate-exchange": names.unrouted})
    # no alternate exchange: it would count as routed, and a missing queue would go unnoticed
    yield Exchange(names.work, "direct")
    yield Exchange(names.intake_dead, "fanout")
    yield Exchange(names.intake_deferred, "fanout")
    yield Exchange(names.stray, "fanout")
    yield Exchange(names.peers, "fanout")
    yield Exchange(names.due, "topic", {"alternate-exchange": names.stray})


def _fixed_queues(names: Names) -> Iterator[Queue]:
    yield Queue(names.intake, _never_dropping(names.intake_dead))
    yield Queue(names.intake_dead, _quorum())
    yield Queue(names.intake_deferred, _never_dropping(names.jobs, {"x-message-ttl": DEFER_MS}))
    # not even a message's own expiration drops it
    yield Queue(names.unrouted, _never_dropping(names.intake_dead))
    yield Queue(names.rejected, _quorum(REJECTED_LIMITS))
    yield Queue(names.scheduled, _never_dropping(names.stray))
    yield Queue(names.stray, _quorum())
    yield Queue(names.history, _quorum())
    yield Queue(names.unrecorded, _quorum())


def _fixed_bindings(names: Names) -> Iterator[Binding]:
    yield Binding(names.jobs, names.intake, "#")
    for name in (names.unrouted, names.intake_dead, names.intake_deferred, names.stray):
        yield Binding(name, name)


def _ladder_exchanges(names: Names) -> Iterator[Exchange]:
    yield Exchange(names.delays, "topic")
    for level in range(ladder.LEVELS):
        yield Exchange(names.after(level), "topic")


def _ladder_queues(names: Names) -> Iterator[Queue]:
    for level in range(ladder.LEVELS):
        arguments = _never_dropping(names.after(level), {"x-message-ttl": ladder.ttl_ms(level)})
        yield Queue(names.delay(level), arguments)


def _ladder_bindings(names: Names) -> Iterator[Binding]:
    for level in range(ladder.LEVELS):
        yield Binding(names.delays, names.delay(level), ladder.entry_pattern(level))
        for lower in range(level):
            yield Binding(names.after(level), names.delay(lower), ladder.next_pattern(level, lower))
        yield Binding(names.after(level), names.due, ladder.next_pattern(level, None), to_exchange=True)
