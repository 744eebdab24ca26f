"""Acknowledgements, against a model of what a broker does with them."""

from __future__ import annotations

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from dispatcher.core.acks import AckLedger, Flush


class Channel(RuleBasedStateMachine):
    """A channel whose broker closes it when a tag is acknowledged that is not outstanding."""

    def __init__(self) -> None:
        super().__init__()
        self.ledger = AckLedger()
        self.next = 1
        self.running: list[int] = []
        self.finished: set[int] = set()
        self.outstanding: set[int] = set()
        self.acked: list[int] = []

    def choose(self, data: st.DataObject) -> int:
        return data.draw(st.sampled_from(self.running))

    @rule(count=st.integers(1, 4), skip=st.integers(0, 2))
    def deliver(self, count: int, skip: int) -> None:
        """Tags rise, not always by one (another consumer of the channel may have the rest)."""
        for _ in range(count):
            self.next += 1 + skip
            self.ledger.delivered(self.next)
            self.running.append(self.next)
            self.outstanding.add(self.next)

    @precondition(lambda self: self.running)
    @rule(data=st.data())
    def finish(self, data: st.DataObject) -> None:
        """A job ends, in any order."""
        tag = self.choose(data)
        self.running.remove(tag)
        self.finished.add(tag)
        self.ledger.finish(tag)

    @precondition(lambda self: self.running)
    @rule()
    def finish_the_first(self) -> None:
        """The oldest job ends, so that there are prefixes."""
        tag = self.running.pop(0)
        self.finished.add(tag)
        self.ledger.finish(tag)

    @precondition(lambda self: self.running)
    @rule(data=st.data())
    def give_back(self, data: st.DataObject) -> None:
        """A job is returned with a nack, which ends its tag."""
        tag = self.choose(data)
        self.running.remove(tag)
        self.outstanding.remove(tag)
        self.ledger.give_back(tag)

    @rule()
    def flush(self) -> None:
        """Exactly the finished tags leave the broker, none of them twice, and no other."""
        upto, single = self.ledger.flush()
        gone: list[int] = []
        if upto is not None:
            assert upto in self.outstanding, "the broker closes the channel on an unknown tag"
            gone = sorted(tag for tag in self.outstanding if tag <= upto)
            self.outstanding.difference_update(gone)
        for tag in single:
            assert tag in self.outstanding, "the broker closes the channel on an unknown tag"
            self.outstanding.remove(tag)
            gone.append(tag)
        assert sorted(gone) == sorted(self.finished)
        assert all(tag in self.finished for tag in gone), "`multiple` covers what is not finished"
        first_running = min(self.running, default=self.next + 1)
        assert all(tag > first_running for tag in single), "a frame more than `multiple` would have needed"
        assert len(set(single)) == len(single)
        self.acked += gone
        self.finished.clear()

    @invariant()
    def the_count_is_right(self) -> None:
        """`outstanding` is what the broker counts as unacknowledged."""
        assert self.ledger.outstanding == len(self.outstanding)
        assert len(self.acked) == len(set(self.acked))

    def teardown(self) -> None:
        """In the end everything can be acknowledged."""
        for tag in self.running:
            self.finished.add(tag)
            self.ledger.finish(tag)
        self.running = []
        self.flush()
        assert not self.outstanding
        assert self.ledger.flush() == Flush(None, ())


TestAnyOrder = Channel.TestCase
TestAnyOrder.settings = settings(max_examples=30, stateful_step_count=30, deadline=None, database=None)


def test_a_long_job_holds_up_nobody() -> None:
    """The first of a hundred goes on running: the other 99 are acknowledged all the same."""
    ledger = AckLedger()
    for tag in range(1, 101):
        ledger.delivered(tag)
    for tag in range(2, 101):
        ledger.finish(tag)
    assert ledger.flush() == Flush(None, tuple(range(2, 101)))
    assert ledger.outstanding == 1
    ledger.finish(1)
    assert ledger.flush() == Flush(1, ())
    assert ledger.outstanding == 0


def test_a_finished_prefix_is_one_acknowledgement() -> None:
    """A thousand finished jobs in a row cost one frame."""
    ledger = AckLedger()
    for tag in range(1, 1_001):
        ledger.delivered(tag)
        ledger.finish(tag)
    assert ledger.flush() == Flush(1_000, ())


def test_the_prefix_steps_over_what_was_given_back() -> None:
    """A returned tag in the middle neither stops the prefix nor is acknowledged by itself."""
    ledger = AckLedger()
    for tag in (1, 2, 3):
        ledger.delivered(tag)
    ledger.finish(1)
    ledger.give_back(2)
    ledger.finish(3)
    assert ledger.flush() == Flush(3, ())
    ledger.delivered(4)
    ledger.give_back(4)
    assert ledger.flush() == Flush(None, ())
    assert ledger.outstanding == 0
