"""What a handler raises, however strange: it ends the attempt, and nothing of it reaches the worker."""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import BeforeValidator

from consumers import Cancel
from consumers.executor import Executor
from schemas import Outcome
from tests.unit import child_handlers
from tests.unit.test_executor import both, in_child, raising, run


class Withdrawn(Cancel):
    """A subclass that does not call its base's constructor."""

    def __init__(self) -> None:
        pass


class Moody(ExceptionGroup[Exception]):
    """A group that does not show its members."""

    @property
    def exceptions(self) -> Any:
        """Not for you."""
        raise LookupError("none of your business")


async def test_what_a_handler_raises_in_a_strange_way_ends_its_attempt(executor: Executor) -> None:
    """Nothing of it reaches the worker, which would give the step back and run it again without end."""
    for handler in both(raising(Cancel(ValueError("why")))):
        execution, _ = await run(executor, handler)
        assert execution.outcome is Outcome.CANCELLED
        assert execution.error is not None
        assert execution.error.message == "why"
    for error in (child_handlers.Nap(), Withdrawn(), Moody("x", [ValueError()])):
        for handler in both(raising(error)):
            execution, _ = await run(executor, handler)
            assert (execution.outcome, execution.retryable) == (Outcome.FAILED, True)
            assert execution.error is not None
            assert execution.error.type == type(error).__name__
    execution, _ = await in_child(executor, "steer", {"how": "cancel with an error"})
    assert (execution.outcome, execution.error and execution.error.message) == (Outcome.CANCELLED, "gone")
    for how in ("bare snooze", "interrupt"):
        execution, _ = await in_child(executor, "steer", {"how": how})
        assert execution.outcome is Outcome.FAILED, how


def exits(value: Any) -> Any:
    """A validator that does not come back."""
    raise SystemExit(3)


async def test_a_validator_that_raises_anything_ends_the_attempt(executor: Executor) -> None:
    """It runs in the worker's loop, which it must not end."""

    async def handler(payload: Annotated[dict[str, Any], BeforeValidator(exits)]) -> None: ...

    execution, _ = await run(executor, handler)
    assert execution.outcome is Outcome.FAILED
    assert execution.error is not None
    assert execution.error.type == "SystemExit"


async def test_a_group_has_the_names_of_its_members(executor: Executor) -> None:
    """As a TaskGroup raises it; from a child process too."""
    group = ExceptionGroup("two", [LookupError("a"), ConnectionResetError("b")])
    found = [(await run(executor, handler))[0] for handler in both(raising(group))]
    found.append((await in_child(executor, "steer", {"how": "group"}))[0])
    for execution in found:
        assert execution.error is not None
        assert execution.error.type == "ExceptionGroup"
        assert {"ExceptionGroup", "LookupError", "ConnectionError", "builtins.OSError"} <= set(execution.names)
