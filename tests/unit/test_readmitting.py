"""Where what an older version set aside belongs."""

from __future__ import annotations

import pytest

from dispatcher.core.grouping import partition_of
from dispatcher.core.topology import Names
from dispatcher.edges.amqp import Outgoing
from dispatcher.services.readmitting import event_message, work_message
from schemas import ErrorInfo, GroupSpec, Trace, WorkMessage, join_batch
from schemas.events import MARK
from tests.unit.samples import NOW, make_work
from tests.unit.test_events import OF_EACH_KIND, encode_batches

NAMES = Names("p.")


def to(work: WorkMessage, now: int = NOW) -> Outgoing | None:
    """Where it goes."""
    return work_message(NAMES, work.encode(), now)


def test_events_go_back_to_history() -> None:
    """Whole, as they came; what are none stay."""
    (body,) = encode_batches(OF_EACH_KIND)
    assert event_message(NAMES, body) == Outgoing("", "p.history.v1", body)
    assert event_message(NAMES, MARK) is not None
    for foreign in (b"", b"{}", b"[]", b'{"v":99,"events":[]}', make_work().encode()):
        assert event_message(NAMES, foreign) is None


@pytest.mark.parametrize("priority", ["critical", "background"])
def test_a_step_goes_back_to_its_work_queue(priority: str) -> None:
    """Marked, since it may be there already; with the client's trace."""
    trace = Trace(traceparent="00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01")
    work = make_work(lane="slow", priority=priority, trace=trace)
    found = to(work)
    assert found is not None
    assert (found.exchange, found.routing_key, found.body) == ("p.work.v1", f"slow.{priority}", work.encode())
    assert found.headers is not None
    assert found.headers.items() >= {"traceparent": trace.traceparent}.items()
    assert len(found.headers) == 2


def test_a_batch_goes_back_whole() -> None:
    """To the work queue of its members."""
    members = [make_work(id=name, seq=2, lane="slow", priority="high") for name in ("a", "b")]
    body = join_batch("b-1", [member.encode() for member in members])
    found = work_message(NAMES, body, NOW)
    assert found is not None
    assert (found.exchange, found.routing_key, found.body) == ("p.work.v1", "slow.high", body)


def test_what_waits_goes_back_to_wait() -> None:
    """In the ladder, for the scheduler, or for its group."""
    soon, late = to(make_work(due_at=NOW + 5_000)), to(make_work(due_at=NOW + 3_600_000))
    member = make_work(group=GroupSpec(key="g"))
    grouped = to(member)
    assert soon is not None
    assert late is not None
    assert grouped is not None
    assert soon.exchange == "p.delay.v1"
    assert (late.exchange, late.routing_key) == ("", "p.scheduled.v1")
    assert (grouped.exchange, grouped.routing_key) == ("", f"p.group.v1.{partition_of(member)}")


def test_dead_jobs_stay_parked() -> None:
    """They have an error; what cannot be read stays too."""
    dead = make_work(error=ErrorInfo(type="ValueError"))
    assert to(dead) is None
    assert work_message(NAMES, join_batch("b", [make_work(seq=2).encode(), dead.encode()]), NOW) is None
    for foreign in (b"", b"{}", b'{"v":99}', b'{"v":1,"batch":"b","members":[]}', MARK):
        assert work_message(NAMES, foreign, NOW) is None
