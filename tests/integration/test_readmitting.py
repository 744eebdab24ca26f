"""What an older version set aside goes back to where it lay; what is nobody's, and dead jobs, stay."""

from __future__ import annotations

import pytest

from schemas import BatchMessage, ErrorInfo, WorkMessage, join_batch
from tests.processes import command
from tests.support import Installation, finished_job
from tests.unit.samples import make_work

pytestmark = pytest.mark.integration


async def test_events_go_back_to_history(installed: Installation) -> None:
    """Those that this version reads; the rest is still there to be looked at."""
    names, event = installed.names, finished_job("r-1")
    foreign = b'{"v":99,"events":[]}'
    installation_bodies = [(names.unrecorded, body) for body in (foreign, event)]
    installed.publish_many(installation_bodies, headers={"x-error": "not a batch of events"}, exchange="")
    done = await command(installed, "unrecorded", "readmit", "--json")
    assert (done.code, done.json) == (0, {"readmitted": 1, "looked_at": 2})
    assert installed.drain(names.history) == [({}, event)]
    assert installed.drain(names.unrecorded) == [({"x-error": "not a batch of events"}, foreign)]


async def test_parked_messages_go_back_to_their_queues(installed: Installation) -> None:
    """A batch and a step, marked as what may be there already; a dead job and what nobody reads stay parked."""
    parked, queue = installed.names.parked("default"), installed.names.work_queue("default", "normal")
    step, dead = make_work(id="r-2"), make_work(id="r-3", error=ErrorInfo(type="ValueError"))
    batch = join_batch("b-1", [make_work(id=name, seq=2).encode() for name in ("r-4", "r-5")])
    foreign = b'{"v":99}'
    bodies = [dead.encode(), batch, foreign, step.encode()]
    installed.publish_many([(parked, body) for body in bodies], headers={"x-error": "not a work message"}, exchange="")
    done = await command(installed, "dead", "readmit")
    assert (done.code, done.out) == (0, "2 messages put back of 4 looked at\n")
    (first_headers, first), (second_headers, second) = installed.drain(queue)
    assert (BatchMessage.decode(first).batch, WorkMessage.decode(second)) == ("b-1", step)
    assert first_headers == second_headers != {}
    assert [body for _, body in installed.drain(parked)] == [dead.encode(), foreign]
