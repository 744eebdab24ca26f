"""Batch handlers: one call for several jobs, each of which ends by itself; in the loop, in a thread, in a process."""

from __future__ import annotations

import asyncio
import logging
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from consumers import BatchContext, Context, Registry, Snooze
from consumers.batches import entries
from consumers.child import run as run_in_child
from consumers.context import batch_context
from consumers.executor import Executor
from consumers.progress import Progress
from consumers.registry import Handler
from consumers.results import ResultError
from consumers.running import Stop
from dispatcher.core.cancelling import Tombstone
from dispatcher.core.outcome import Execution
from dispatcher.edges.log import fields_of
from schemas import Outcome
from tests.support import eventually
from tests.unit import child_handlers
from tests.unit.test_executor import context

WAYS = ("batch.async", "batch.thread", "batch.process")
Ended = list[tuple[Execution, Any]]
every_way = pytest.mark.parametrize("way", WAYS)


def contexts(count: int, **fields: Any) -> list[Context]:
    """Those of jobs ``j0``, ``j1``, …."""
    return [context(id=f"j{n}", execution=f"e{n}", **fields) for n in range(count)]


def named(job_type: str) -> Handler:
    """A handler of `child_handlers`."""
    handler = child_handlers.jobs.get(job_type)
    assert handler is not None
    return handler


async def run(
    executor: Executor,
    way: str,
    payloads: list[Any],
    timeout: float = 20,
    told: list[Context] | None = None,
    begun: list[Stop] | None = None,
) -> Ended:
    """Run a batch in one of the ways; what can stop it is added to ``begun`` as it begins."""
    handler, told, begun = named(way), told or contexts(len(payloads), type=way), [] if begun is None else begun
    if handler.kind != "process":
        begun.append(Stop())
        return await executor.run_batch(handler, payloads, told, "b1", timeout, None, begun[0])
    async with executor.child() as child:
        begun.append(Stop())
        return await executor.run_batch(handler, payloads, told, "b1", timeout, child, begun[0])


def whole(how: str, count: int = 3) -> list[dict[str, Any]]:
    """Payloads of a batch that ends so."""
    return [{"number": n, "whole": how} for n in range(count)]


def lines(caplog: Any, begins: str) -> list[dict[str, Any]]:
    """The lines of the log whose text begins so."""
    found = [dict(fields_of(record)) for record in caplog.records]
    return [line for line in found if str(line["event"]).startswith(begins)]


def outcomes(ended: Ended) -> list[str]:
    """How each ended."""
    return [str(execution.outcome) for execution, _ in ended]


@every_way
async def test_every_member_ends_as_its_entry_says(executor: Executor, way: str) -> None:
    """Results, exceptions, Snooze and Cancel; a payload that does not fit and a result that cannot be recorded."""
    hows = ("result", "error", "snooze", "misfit", "cancel", "unstorable", "bare snooze", "large", "interrupt", "last")
    payloads = [{"number": "x" if how == "misfit" else n, "end": how} for n, how in enumerate(hows)]
    ended = dict(zip(hows, await run(executor, way, payloads), strict=True))
    for n, how in ((0, "result"), (9, "last")):
        result = {"number": n, "batch": "b1", "member": f"j{n}", "of": len(hows) - 1}
        assert ended[how] == (Execution(Outcome.SUCCEEDED), result)
    assert ended["snooze"] == (Execution(Outcome.SNOOZED, snooze=7.0), None)
    cancelled, _ = ended["cancel"]
    assert (cancelled.outcome, cancelled.error and cancelled.error.message) == (Outcome.CANCELLED, "why")
    failed = {how: ended[how][0] for how in ("error", "misfit", "unstorable", "bare snooze", "large", "interrupt")}
    assert {e.outcome for e in failed.values()} == {Outcome.FAILED}
    assert {how: e.retryable for how, e in failed.items()} == {
        "error": True,
        "misfit": False,
        "unstorable": False,
        "bare snooze": True,
        "large": False,
        "interrupt": True,
    }
    assert {how: e.error and e.error.type for how, e in failed.items()} == {
        "error": "OrderError",
        "misfit": "ValidationError",
        "unstorable": "ResultError",
        "bare snooze": "Nap",
        "large": "ResultError",
        "interrupt": "KeyboardInterrupt",
    }
    assert {"OrderError", "LookupError", "Exception"} <= set(failed["error"].names)


@every_way
async def test_what_a_batch_handler_raises_holds_for_every_member(executor: Executor, way: str) -> None:
    """But not for one whose payload did not fit."""
    failed, misfit, other = await run(executor, way, [*whole("error", 1), {}, {"number": 2}])
    for execution, result in (failed, other):
        assert (execution.outcome, execution.retryable, result) == (Outcome.FAILED, True, None)
        assert execution.error is not None
        assert (execution.error.type, execution.error.message) == ("OrderError", "no such order")
        assert "raise RAISED" in (execution.error.traceback or "")
        assert "LookupError" in execution.names
    assert (misfit[0].error and misfit[0].error.type, misfit[0].retryable) == ("ValidationError", False)
    assert await run(executor, way, whole("snooze")) == [(Execution(Outcome.SNOOZED, snooze=7.0), None)] * 3
    assert outcomes(await run(executor, way, whole("cancel"))) == ["cancelled"] * 3


@every_way
async def test_none_and_a_tuple_are_returns_too(executor: Executor, way: str) -> None:
    """None: all succeeded, without results."""
    assert await run(executor, way, whole("none")) == [(Execution(Outcome.SUCCEEDED), None)] * 3
    assert [result["number"] for _, result in await run(executor, way, whole("tuple"))] == [0, 1, 2]


@every_way
async def test_what_has_not_one_entry_for_each_payload_fails_all_without_a_retry(executor: Executor, way: str) -> None:
    """The sentence says what was expected."""
    for how, said in (("short", "returned 2 entries for 3 payloads"), ("dict", "returned a dict for 3 payloads")):
        for execution, result in await run(executor, way, whole(how)):
            assert (execution.outcome, execution.retryable, result) == (Outcome.FAILED, False, None)
            assert execution.error is not None
            assert execution.error.type == "ResultError"
            assert f"{said}: return None, or a list with one entry for each payload" in execution.error.message


@every_way
async def test_a_batch_in_which_no_payload_fits_is_not_run(executor: Executor, way: str) -> None:
    """It would exit, or hang."""
    wrong = [{"number": "x", "whole": "exit"}, {}]
    assert outcomes(await run(executor, way, wrong)) == ["failed"] * 2
    assert await run(executor, way, []) == []


@every_way
async def test_the_timeout_ends_all_that_were_handed_over(executor: Executor, way: str) -> None:
    """And tells all of them that the result no longer matters."""
    told = contexts(3, type=way)
    ended = await run(executor, way, whole("hang"), timeout=0.3, told=told)
    assert outcomes(ended) == ["timed_out"] * 3
    assert {"TimeoutError"} <= set(ended[2][0].names)
    assert all(member.cancelled for member in told)


@every_way
async def test_an_operator_ends_all_of_them(executor: Executor, way: str) -> None:
    """Whatever the handler makes of it; the task that ran it is cancelled no longer."""
    tombstone, begun = Tombstone("shop:j1", 1, "no longer wanted"), list[Stop]()
    task = asyncio.create_task(run(executor, way, whole("hang", 2), begun=begun))
    await eventually(lambda: begun, "it began")
    begun[0].ask(tombstone)
    assert await task == [(Execution(Outcome.CANCELLED, tombstone.error), None)] * 2
    assert not task.cancelling()


@every_way
async def test_a_stop_of_the_worker_is_no_outcome(executor: Executor, way: str) -> None:
    """The worker gives the jobs back."""
    told, begun = contexts(2, type=way), list[Stop]()
    task = asyncio.create_task(run(executor, way, whole("hang", 2), told=told, begun=begun))
    await eventually(lambda: begun, "it began")
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert all(member.cancelled for member in told)


async def test_a_crash_is_one_of_every_member(executor: Executor) -> None:
    """The child process took all of them with it."""
    ended = await run(executor, "batch.process", whole("exit"))
    assert outcomes(ended) == ["crashed"] * 3
    assert "code 3" in str(ended[0][0].error)


@every_way
async def test_progress_is_told_of_every_member(executor: Executor, way: str) -> None:
    """That of the batch of all, that of a member of it alone."""
    heard: dict[str, list[Progress]] = {"j0": [], "j1": []}
    told = [context(id=i, execution=f"e-{i}", type=way, _tell=said.append) for i, said in heard.items()]
    await run(executor, way, whole("progress", 2), told=told)
    half, done = Progress(1, 2, "half way"), Progress(2, 2, "the second is done")
    assert heard["j0"] == [half]
    assert heard["j1"][-1] == done


async def test_a_line_of_the_log_carries_the_batch(executor: Executor, caplog: Any) -> None:
    """Its app, its id and how many it has."""
    with caplog.at_level(logging.INFO):
        await run(executor, "batch.async", whole("log", 2))
    (line,) = lines(caplog, "from a batch")
    assert {"app": "shop", "batch": "b1", "members": 2, "number": 7}.items() <= line.items()


async def test_a_thread_that_hangs_is_told_of_with_its_batch(executor: Executor, caplog: Any) -> None:
    """As that of a lone job is."""
    with caplog.at_level(logging.WARNING):
        await run(executor, "batch.thread", whole("hang", 2), timeout=0.05)
    (line,) = lines(caplog, "a thread cannot be stopped")
    assert {"type": "batch.thread", "app": "shop", "batch": "b1", "members": 2}.items() <= line.items()


async def test_a_lone_job_is_a_list_of_one(executor: Executor) -> None:
    """Whose batch is the job itself, however it is asked for; in a child process too."""
    alone = {"number": 4, "batch": "j0", "member": "j0", "of": 1}
    for way in WAYS[:2]:
        (told,), handler = contexts(1), named(way)
        assert await executor.run_batch(handler, [{"number": 4}], [told], "", 20) == [(Execution("succeeded"), alone)]
        assert await executor.run(handler, {"number": "4"}, told, 20) == (Execution(Outcome.SUCCEEDED), alone)
        assert (await executor.run(handler, {}, told, 20))[0].retryable is False
    async with executor.child() as child:
        (told,), handler = contexts(1, type=WAYS[2]), named(WAYS[2])
        assert (await executor.run(handler, {"number": 4}, told, 20, child))[1] == alone


async def test_a_large_batch_passes_through_a_child(executor: Executor) -> None:
    """4 MiB, in a thousand payloads."""
    payloads = [{"text": "x" * 4_180} for _ in range(1_000)]
    assert await run(executor, "batch.size", payloads) == [(Execution(Outcome.SUCCEEDED), 4_180)] * 1_000


def test_a_child_whose_module_was_changed_says_so() -> None:
    """It would give a list to who takes one payload, or the other way round."""
    fields = {"id": "j", "app": "a", "type": "t", "run": 1, "attempt": 1, "execution": "e", "tags": [], "trace": None}
    for job_type, said in (("pid", "restart it"), ("none.such", "no handler for none.such")):
        request = {"type": job_type, "batch": "b", "payloads": [{}], "contexts": [fields]}
        answer = run_in_child(child_handlers.jobs, request, 1_000)
        assert answer["members"] == [None]
        assert said in answer["others"]["error"]["message"]
    answer = run_in_child(child_handlers.jobs, {"type": WAYS[2], "payload": {}, "context": fields}, 1_000)
    assert (answer["outcome"], "restart it" in answer["error"]["message"]) == ("error", True)


def test_a_batch_no_longer_matters_when_no_member_does() -> None:
    """It is cancelled with the last of them, and all of them with it."""
    members = contexts(2)
    batch = batch_context("b1", members)
    assert (batch.id, batch.app, batch.type, batch.members) == ("b1", "shop", "t", tuple(members))
    members[0].cancel()
    assert not batch.cancelled
    batch.cancel()
    assert (batch.cancelled, members[1].cancelled) == (True, True)
    for wrong in (float("nan"), "3"):
        with pytest.raises(ValueError, match="progress: done"):
            batch.progress(wrong)  # type: ignore[arg-type]


@given(st.integers(0, 50), st.integers(0, 50))
def test_a_list_has_as_many_entries_as_payloads_or_is_refused(returned: int, count: int) -> None:
    """And nothing else passes for one."""
    if returned == count:
        assert list(entries(list(range(returned)), count)) == list(range(count))
    else:
        with pytest.raises(ResultError, match=f"returned {returned} entr.* for {count} payload"):
            entries([1] * returned, count)
    for wrong in (7, "x" * count, {n: n for n in range(count)}, iter([1] * count), ValueError("x"), set(range(count))):
        with pytest.raises(ResultError, match=f"returned a {type(wrong).__name__} for"):
            entries(wrong, count)


@given(st.lists(st.sampled_from(["fits", "misfit", "fails", "snoozes", "unstorable"]), max_size=12))
def test_every_ending_comes_to_its_own_job(kinds: list[str]) -> None:
    """Wherever those stand whose payloads do not fit."""
    jobs, got = Registry(), []
    made = {"fails": LookupError("no"), "snoozes": Snooze(1), "unstorable": object()}

    @jobs.handler("t")
    async def handle(orders: list[child_handlers.Order], ctx: BatchContext) -> list[Any]:
        got.append([member.id for member in ctx.members])
        return [made.get(kinds[order.number], order.number) for order in orders]

    async def attempt() -> Ended:
        executor, handler = Executor(1, "", 1_000), jobs.get("t")
        assert handler is not None
        payloads = [{"number": "x" if kind == "misfit" else n} for n, kind in enumerate(kinds)]
        try:
            return await executor.run_batch(handler, payloads, contexts(len(kinds)), "b1", 20)
        finally:
            await executor.close()

    ended = asyncio.run(attempt())
    said = {"fits": "succeeded", "snoozes": "snoozed"}
    assert outcomes(ended) == [said.get(kind, "failed") for kind in kinds]
    assert [result for _, result in ended] == [n if kind == "fits" else None for n, kind in enumerate(kinds)]
    retried = [execution.retryable for execution, _ in ended]
    assert retried == [kind not in ("misfit", "unstorable") for kind in kinds]
    handed = [f"j{n}" for n, kind in enumerate(kinds) if kind != "misfit"]
    assert got == ([handed] if handed else [])
