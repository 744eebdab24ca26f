"""Groups that are gathered: which members a batch has, and when it is complete."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable

from hypothesis import given
from hypothesis import strategies as st

from dispatcher.core.grouping import (
    MAX_BATCH_BYTES,
    MOST_QUIET,
    QUIET,
    Batch,
    GroupKey,
    Groups,
    Member,
    group_key,
    partition_of,
)
from dispatcher.core.topology import PARTITIONS
from schemas import GroupSpec
from tests.unit.samples import make_work

SPEC = GroupSpec(key="a", max_size=3, max_wait=5.0)
KEY = GroupKey("shop", "mail.send", "default", "normal", "a")
OTHER = KEY._replace(key="b")


def a_member(name: str, size: int = 10, *, again: bool = False) -> Member:
    """A member that takes so many bytes."""
    return Member(name, 1, 1, 0, b"x" * (size - 1), [name], again)


def ids(batches: Iterable[Batch]) -> list[tuple[str, str]]:
    """Reason and members of each."""
    return [(batch.reason, " ".join(m.id for m in batch.group.members.values())) for batch in batches]


def fill(groups: Groups, *names: str, now: float = 0.0, key: GroupKey = KEY, spec: GroupSpec = SPEC) -> list[Batch]:
    """Add members that were accepted just now."""
    return [batch for name in names for batch in groups.add(0, key, spec, a_member(name), 0.0, now)]


def test_a_group_is_flushed_when_it_is_complete() -> None:
    """At the first member's size; what comes then opens the next."""
    groups = Groups(1_000, 1 << 20)
    assert ids(fill(groups, "1", "2", "3", "4")) == [("size", "1 2 3")]
    assert (len(groups), groups.members, groups.size) == (1, 1, 10)
    larger = GroupSpec(key="a", max_size=9, max_wait=0.1)
    assert ids(fill(groups, "5", "6", spec=larger)) == [("size", "4 5 6")]
    assert groups.due(100.0) == []


def test_a_group_is_flushed_when_the_wait_of_its_first_member_is_over() -> None:
    """Whatever the later ones ask for; the time since its acceptance counts."""
    groups = Groups(1_000, 1 << 20)
    groups.add(0, KEY, SPEC, a_member("1"), 2.0, 10.0)
    groups.add(0, KEY, GroupSpec(key="a", max_wait=0.1), a_member("2"), 0.0, 10.5)
    assert groups.next_at() == 13.0
    assert groups.due(12.999) == []
    assert ids(groups.due(13.0)) == [("time", "1 2")]
    assert groups.next_at() is None


def test_a_clock_that_differs_makes_no_group_wait_longer() -> None:
    """A member that seems to be accepted in the future waits no longer than it asked for."""
    groups = Groups(1_000, 1 << 20)
    groups.add(0, KEY, SPEC, a_member("1"), -60.0, 0.0)
    assert groups.next_at() == 5.0


def test_what_comes_late_is_flushed_together() -> None:
    """After another dispatcher held it: once nothing has come for a while, and not much later than that."""
    groups = Groups(1_000, 1 << 20)
    roomy = GroupSpec(key="a", max_size=1_000, max_wait=5.0)
    groups.add(0, KEY, roomy, a_member("1", again=True), 60.0, 0.0)
    now, came = 0.0, 1
    while now < 1.0:
        now, came = now + QUIET / 2, came + 1
        groups.add(0, KEY, roomy, a_member(f"at {now:.2f}"), 60.0, now)
        assert groups.due(now) == []
    assert groups.next_at() is not None
    (batch,) = groups.due(now + QUIET)
    assert len(batch.group.members) == came
    groups.add(0, KEY, roomy, a_member("1", again=True), 60.0, 10.0)
    while now < 10.0 + MOST_QUIET:
        now = max(now, 10.0) + QUIET / 2
        groups.add(0, OTHER, roomy, a_member(f"at {now:.2f}"), 0.0, now)
    assert ids(groups.due(now)) == [("time", "1")]


def test_a_member_that_comes_again_joins_itself() -> None:
    """It is in the batch once; both deliveries are done with it, and it is marked."""
    groups = Groups(1_000, 1 << 20)
    assert fill(groups, "1", "1", "2") == []
    (batch,) = fill(groups, "3")
    first = next(iter(batch.group.members.values()))
    assert (first.id, first.deliveries, first.again, groups.members) == ("1", ["1", "1"], True, 0)


def test_a_batch_has_no_more_bytes_than_a_broker_takes() -> None:
    """A member that does not fit any more begins the next; one that is alone may be larger."""
    groups = Groups(1_000, 1 << 30)
    half, whole = MAX_BATCH_BYTES // 2, MAX_BATCH_BYTES + 1
    assert groups.add(0, KEY, SPEC, a_member("1", half), 0.0, 0.0) == []
    assert groups.add(0, KEY, SPEC, a_member("2", half), 0.0, 0.0) == []
    assert ids(groups.add(0, KEY, SPEC, a_member("3", whole), 0.0, 0.0)) == [("bytes", "1 2")]
    assert ids(groups.add(0, KEY, SPEC, a_member("4"), 0.0, 0.0)) == [("bytes", "3")]


def test_under_pressure_the_largest_go_first() -> None:
    """Where a partition holds too many members, or all of them too many bytes; until half is left."""
    roomy = GroupSpec(key="a", max_size=1_000, max_wait=5.0)
    groups = Groups(11, 1 << 30)
    fill(groups, *"123456", spec=roomy)
    groups.add(0, KEY._replace(key="c"), roomy, a_member("c"), 0.0, 0.0)
    fill(groups, *"78", key=OTHER, spec=roomy)
    assert ids(fill(groups, "9", key=OTHER, spec=roomy)) == [("pressure", "1 2 3 4 5 6")]
    assert (len(groups), groups.members) == (2, 4)
    groups = Groups(1_000, 1_000)
    groups.add(0, KEY, roomy, a_member("small"), 0.0, 0.0)
    groups.add(1, OTHER, roomy, a_member("large", 700), 0.0, 0.0)
    found = groups.add(2, KEY._replace(key="c"), roomy, a_member("medium", 400), 0.0, 0.0)
    assert ids(found) == [("pressure", "large")]
    assert groups.size == 410


def test_what_is_another_dispatchers_is_forgotten() -> None:
    """Nothing of it is ever flushed."""
    groups = Groups(1_000, 1 << 20)
    fill(groups, "1", "2")
    groups.clear()
    assert (len(groups), groups.members, groups.size, groups.due(99.0), groups.next_at()) == (0, 0, 0, [], None)
    assert fill(groups, "3") == []


@given(
    st.lists(
        st.tuples(
            st.sampled_from("abcd"),
            st.integers(1, 6),
            st.floats(0.1, 3.0),
            st.floats(-1.0, 5.0),
            st.floats(0.0, 1.0),
            st.sampled_from((10, 300, MAX_BATCH_BYTES // 2)),
        ),
        max_size=60,
    )
)
def test_every_member_is_in_exactly_one_batch(arrivals: list[tuple[str, int, float, float, float, int]]) -> None:
    """However they come; no batch has more members than its first allowed, and all is counted rightly."""
    groups, now = Groups(8, MAX_BATCH_BYTES * 2), 0.0
    flushed: list[Batch] = []
    for number, (key, size, wait, age, pause, length) in enumerate(arrivals):
        now += pause
        flushed += groups.due(now)
        spec = GroupSpec(key=key, max_size=size, max_wait=wait)
        member = a_member(str(number), length)
        flushed += groups.add(number % 2, KEY._replace(key=key), spec, member, age, now)
    while (at := groups.next_at()) is not None:
        now = max(now, at)
        flushed += groups.due(now)
    assert (len(groups), groups.members, groups.size) == (0, 0, 0)
    seen = Counter(member.id for batch in flushed for member in batch.group.members.values())
    assert seen == Counter(map(str, range(len(arrivals))))
    for batch in flushed:
        assert len(batch.group.members) <= batch.group.max_size
        assert batch.group.size <= MAX_BATCH_BYTES or len(batch.group.members) == 1


def test_a_group_is_what_members_have_in_common() -> None:
    """App, type, lane, priority and key; each group has one partition, and the partitions have about as many."""
    work = make_work(group=SPEC)
    assert group_key(work, SPEC) == (work.app, work.type, work.lane, work.priority, "a")
    assert partition_of(make_work()) is None
    assert partition_of(work) == partition_of(make_work(group=SPEC, id="other"))
    found = Counter(partition_of(make_work(group=GroupSpec(key=str(n)))) for n in range(1_600))
    assert set(found) == set(range(PARTITIONS))
    assert min(found.values()) > 50
