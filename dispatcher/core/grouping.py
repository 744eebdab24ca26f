"""Groups that are being gathered: which member belongs to which, and when a batch is complete.

A group is what app, type, lane, priority and key have in common. Its first member opens it, and its size and wait
count. It is flushed, as one batch, when it has so many members, when the wait since its first member's acceptance is
over, before its members take more than `MAX_BATCH_BYTES`, or under pressure: where a dispatcher holds too many members,
or too many bytes of them, its largest groups go first.

Pure: times are seconds of any clock that goes forward only.
"""

from __future__ import annotations

import hashlib
import heapq
import itertools
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any, Literal, NamedTuple

from dispatcher.core.topology import PARTITIONS
from schemas import GroupSpec, WorkMessage

#: Most bytes of the members of one batch, unless there is but one.
MAX_BATCH_BYTES = 4 << 20
#: Members that come late (again, or after their group's time) come with others, most likely: their group waits until
#: nothing has come to its partition for so long, and no longer than so, in seconds.
QUIET, MOST_QUIET = 0.3, 3.0
#: Part of the members that may be held in a partition from which on its largest groups are flushed: the broker
#: delivers no more than that many, and what is being published counts too.
PRESSING = 0.9
#: Under pressure groups are flushed until so much of the limit is left.
RELIEVED = 0.5

Reason = Literal["size", "time", "bytes", "pressure"]


class GroupKey(NamedTuple):
    """What the members of a group have in common."""

    app: str
    type: str
    lane: str
    priority: str
    key: str


def group_key(work: WorkMessage, spec: GroupSpec) -> GroupKey:
    """The group of a job."""
    return GroupKey(work.app, work.type, work.lane, work.priority, spec.key)


def partition_of(work: WorkMessage) -> int | None:
    """The number of the queue in which a job waits for the others of its group; None where it has none."""
    if work.group is None:
        return None
    name = "\0".join(group_key(work, work.group)).encode()
    return int.from_bytes(hashlib.blake2b(name, digest_size=4).digest(), "big") % PARTITIONS


@dataclass(slots=True, eq=False)
class Member:
    """A member that waits: ``body`` is its work message as it will be in the batch, ``deliveries`` what brought it.

    ``again``: what it becomes may exist already.
    """

    id: str
    run: int
    seq: int
    accepted_at: int
    body: bytes
    deliveries: list[Any]
    again: bool = False

    @property
    def size(self) -> int:
        """Bytes that it takes in the batch."""
        return len(self.body) + 1


@dataclass(slots=True, eq=False)
class Group:
    """A group that is open. ``flush_at`` is when its wait is over; ``late``: its first member came late."""

    key: GroupKey
    partition: int
    max_size: int
    opened_at: float
    flush_at: float
    late: bool
    members: dict[tuple[str, int, int], Member] = field(default_factory=dict)
    size: int = 0
    open: bool = True


class Batch(NamedTuple):
    """A group that is to be flushed, and why."""

    group: Group
    reason: Reason


class Groups:
    """The open groups of one dispatcher.

    Args:
        most_members: most members that may be held, of each partition.
        most_bytes: most bytes of them, of all partitions.
    """

    def __init__(self, most_members: int, most_bytes: int) -> None:
        self._most_members = most_members
        self._most_bytes = most_bytes
        self._groups: dict[GroupKey, Group] = {}
        self._of_partition: dict[int, set[Group]] = defaultdict(set)
        self._count: dict[int, int] = defaultdict(int)
        self._arrived: dict[int, float] = {}
        self._due: list[tuple[float, int, Group]] = []
        self._numbers = itertools.count()
        #: Bytes of the members that wait.
        self.size = 0

    def __len__(self) -> int:
        return len(self._groups)

    @property
    def members(self) -> int:
        """How many members wait."""
        return sum(self._count.values())

    def oldest(self, now: float) -> float:
        """How long the oldest group has been open, in seconds; 0 where none is."""
        return now - min((group.opened_at for group in self._groups.values()), default=now)

    def clear(self) -> None:
        """Forget all of them: their members are somebody else's."""
        self._groups.clear()
        self._of_partition.clear()
        self._count.clear()
        self._due.clear()
        self.size = 0

    def add(
        self, partition: int, key: GroupKey, spec: GroupSpec, member: Member, age: float, now: float
    ) -> list[Batch]:
        """Take a member; returns what is complete then.

        Args:
            partition: the queue that it came from.
            key, spec: its group, and what it says of that.
            member: itself; one that is there already joins that.
            age: seconds since its acceptance, or since the time for which it asked.
            now: the clock.
        """
        self._arrived[partition] = now
        name = (member.id, member.run, member.seq)
        if (group := self._groups.get(key)) is not None and (known := group.members.get(name)) is not None:
            known.deliveries += member.deliveries
            known.again = True
            return []
        complete: list[Batch] = []
        if group is not None and group.size + member.size > MAX_BATCH_BYTES:
            complete.append(self._flush(group, "bytes"))
            group = None
        if group is None:
            group = self._open(partition, key, spec, member, age, now)
        group.members[name] = member
        group.size += member.size
        self.size += member.size
        self._count[partition] += 1
        if len(group.members) >= group.max_size:
            complete.append(self._flush(group, "size"))
        return complete + list(self._relieve(partition))

    def _open(self, partition: int, key: GroupKey, spec: GroupSpec, member: Member, age: float, now: float) -> Group:
        left = min(max(spec.max_wait - age, 0.0), spec.max_wait)
        group = Group(key, partition, spec.max_size, now, now + left, member.again or not left)
        self._groups[key] = group
        self._of_partition[partition].add(group)
        heapq.heappush(self._due, (group.flush_at, next(self._numbers), group))
        return group

    def _flush(self, group: Group, reason: Reason) -> Batch:
        group.open = False
        del self._groups[group.key]
        self._of_partition[group.partition].discard(group)
        self._count[group.partition] -= len(group.members)
        self.size -= group.size
        return Batch(group, reason)

    def _relieve(self, partition: int) -> Iterator[Batch]:
        """Flush the largest groups where too much waits: as few as possible, and as complete as possible."""
        if self._count[partition] >= self._most_members * PRESSING:
            groups = sorted(self._of_partition[partition], key=lambda group: len(group.members))
            while groups and self._count[partition] > self._most_members * RELIEVED:
                yield self._flush(groups.pop(), "pressure")
        if self.size >= self._most_bytes:
            groups = sorted(self._groups.values(), key=lambda group: group.size)
            while groups and self.size > self._most_bytes * RELIEVED:
                yield self._flush(groups.pop(), "pressure")

    def due(self, now: float) -> list[Batch]:
        """The groups whose wait is over."""
        complete: list[Batch] = []
        while self._due and self._due[0][0] <= now:
            _, _, group = heapq.heappop(self._due)
            if not group.open:
                continue
            quiet_at = min(self._arrived[group.partition] + QUIET, group.opened_at + MOST_QUIET)
            if group.late and quiet_at > now:
                heapq.heappush(self._due, (quiet_at, next(self._numbers), group))
            else:
                complete.append(self._flush(group, "time"))
        return complete

    def next_at(self) -> float | None:
        """When to ask for what is due; None while nothing is open."""
        while self._due and not self._due[0][2].open:
            heapq.heappop(self._due)
        return self._due[0][0] if self._due else None
