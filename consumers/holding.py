"""The steps that one worker holds, by key, and those that it settled last."""

from __future__ import annotations

from collections.abc import Iterator
from enum import Enum

from consumers.lineage import Settled
from consumers.steps import Step, StepKey


class Known(Enum):
    """What a worker knows of a step."""

    SETTLED = "settled"
    HELD = "held"
    IN_DOUBT = "in_doubt"


class Holding:
    """What a worker has in its hands. A batch is found under its own key, and under those of its members."""

    def __init__(self) -> None:
        self._steps: dict[StepKey, Step] = {}
        self._settled = Settled()

    def __len__(self) -> int:
        return len(set(self))

    def __iter__(self) -> Iterator[Step]:
        """What is held, a batch as one."""
        return iter(dict.fromkeys(self._steps.values()))

    def get(self, key: StepKey) -> Step | None:
        """The step with this key, or the batch that has it."""
        return self._steps.get(key)

    def add(self, step: Step) -> None:
        """Hold a step; members that are held already stay with what has them."""
        self._steps[step.key] = step
        for key in step.members:
            self._steps.setdefault(key, step)

    def forget(self, step: Step) -> None:
        """Hold it no more."""
        self._steps.pop(step.key, None)
        for key in step.members:
            self._forget_member(key, step)

    def _forget_member(self, key: StepKey, whole: Step) -> None:
        if self._steps.get(key) is whole:
            del self._steps[key]

    def settle(self, step: Step) -> bool:
        """Everything that follows from it is confirmed; returns whether its deliveries are done with that."""
        for part in step.parts:
            self._settled.add(part.work)
        whole = step.whole
        if whole is None:
            self.forget(step)
            return True
        if whole.members.pop(step.key, None) is not None:
            self._forget_member(step.key, whole)
        if not whole.members:
            self.forget(whole)
        return not whole.members

    def is_settled(self, step: Step) -> bool:
        """Whether all of it was settled here."""
        again = _again(step)
        return all(self._settled.has(part.work, again) for part in step.parts)

    def settled_members(self, step: Step) -> list[Step]:
        """The members of a batch that were settled here."""
        again = _again(step)
        return [member for member in step.members.values() if self._settled.has(member.work, again)]

    def rivals(self, step: Step) -> bool:
        """Whether a member of a batch is in other hands here: alone, or in another batch. What is free is taken."""
        found = False
        for key in step.members:
            found |= self._steps.setdefault(key, step) is not step
        return found

    def was_settled(self, key: StepKey) -> bool:
        """Whether this step was settled here."""
        return key in self._settled


def _again(step: Step) -> bool:
    return any(delivery.again for delivery in step.deliveries)
