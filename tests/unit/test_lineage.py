"""When a step is known to be the only one of its run, and when to be a double of one that was settled."""

from __future__ import annotations

from typing import Any, cast

from consumers.lineage import Lineage, Settled
from dispatcher.edges.amqp import Delivery
from schemas import WorkMessage


def work(seq: int = 1, job: str = "one", run: int = 1) -> WorkMessage:
    """A step."""
    return WorkMessage(
        app="shop", id=job, run=run, n=seq, seq=seq, type="a.b", lane="default", priority="normal",
        accepted_at=1, payload={},
    )  # fmt: skip


def delivered(channel: str = "first", *, again: bool = False) -> Delivery:
    """A delivery on a channel."""
    return Delivery("queue", 1, b"", "", again, {}, None, None, cast(Any, channel))


def test_the_first_step_is_the_only_one_unless_it_comes_again() -> None:
    """Whoever had it before may have sent the next step."""
    assert Lineage().is_only(work(), delivered())
    assert not Lineage().is_only(work(), delivered(again=True))
    assert Lineage().is_only(work(run=2), delivered())


def test_a_step_that_this_worker_sent_is_the_only_one_on_the_same_channel() -> None:
    """A channel that still lives has not lost the acknowledgement of the parent."""
    lineage = Lineage()
    lineage.sent(work(2), delivered())
    assert lineage.is_only(work(2), delivered())


def test_what_came_from_elsewhere_is_not_known() -> None:
    """Another worker's step, another job's, another run's, another step of the run."""
    lineage = Lineage()
    lineage.sent(work(2), delivered())
    for other in (work(3), work(2, job="two"), work(2, run=2)):
        assert not lineage.is_only(other, delivered())


def test_a_second_copy_is_not_the_only_one() -> None:
    """A publish that was sent again, a dead letter that came twice."""
    lineage = Lineage()
    lineage.sent(work(2), delivered())
    assert lineage.is_only(work(2), delivered())
    assert not lineage.is_only(work(2), delivered())


def test_a_step_that_comes_again_is_not_the_only_one() -> None:
    """The broker says so itself, on whatever channel."""
    lineage = Lineage()
    lineage.sent(work(2), delivered())
    assert not lineage.is_only(work(2), delivered(again=True))


def test_another_channel_proves_nothing() -> None:
    """With its channel the parent's acknowledgement may have been lost, and the parent may run again."""
    lineage = Lineage()
    lineage.sent(work(2), delivered("first"))
    assert not lineage.is_only(work(2), delivered("second"))


def test_what_is_remembered_is_bounded() -> None:
    """The oldest is forgotten: history is asked about it."""
    lineage = Lineage(most=2)
    for job in ("one", "two", "three"):
        lineage.sent(work(2, job=job), delivered())
    assert not lineage.is_only(work(2, job="one"), delivered())
    assert lineage.is_only(work(2, job="two"), delivered())
    assert lineage.is_only(work(2, job="three"), delivered())


def test_settled_steps_are_known_until_many_others_were_settled() -> None:
    """Each by app, id, run and place in the run; the oldest are forgotten first."""
    settled = Settled(most=2)
    settled.add(work())
    assert settled.has(work(), again=False)
    assert not settled.has(work(seq=2), again=False)
    assert not settled.has(work(run=2), again=False)
    names = [f"job-{n}" for n in range(9)]
    for n, name in enumerate(names):
        settled.add(work(job=name))
        assert all(settled.has(work(job=last), again=False) for last in names[max(n - 1, 0) : n + 1])
        assert sum(settled.has(work(job=other), again=False) for other in names) <= 4
    assert not settled.has(work(), again=False)


def test_an_id_that_comes_anew_is_another_job() -> None:
    """Accepted at another time, and published for the first time; what may be a second publish of it is not."""
    settled = Settled()
    settled.add(work())
    anew = work().model_copy(update={"accepted_at": work().accepted_at + 1})
    assert not settled.has(anew, again=False)
    assert settled.has(anew, again=True)
    assert settled.has(work(), again=False)
