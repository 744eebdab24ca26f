"""What a worker makes of history's answer about a run."""

from __future__ import annotations

import pytest

from config import load_settings
from consumers.history import History
from schemas import JobState
from tests.unit.samples import make_work


@pytest.mark.parametrize(
    ("run", "seq", "state", "past"),
    [
        (2, 1, JobState.RUNNING, False),
        (2, 2, JobState.RETRYING, True),
        (2, 1, JobState.SUCCEEDED, True),
        (3, 1, JobState.QUEUED, True),
        (1, 7, JobState.FAILED, False),
        (2, 0, JobState.REJECTED, False),
        (3, 0, JobState.REJECTED, False),
    ],
)
async def test_a_step_is_dropped_when_its_run_went_on(
    run: int, seq: int, state: JobState, past: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its own end, a later step or a later run; not a refusal whose id the client then gave to this job."""
    history = History(load_settings())

    async def answer(jobs: list[str]) -> dict[str, tuple[int, int, str]]:
        return dict.fromkeys(jobs, (run, seq, str(state)))

    monkeypatch.setattr(history, "_look_up", answer)
    try:
        assert await history.is_past(make_work(run=2)) is past
    finally:
        await history.close()


async def test_a_job_that_history_does_not_know_is_run() -> None:
    """So is one about which nobody answers."""
    history = History(load_settings())

    async def silence(jobs: list[str]) -> dict[str, tuple[int, int, str]]:
        return {}

    history._look_up = silence  # type: ignore[method-assign]
    try:
        assert not await history.is_past(make_work())
    finally:
        await history.close()


async def test_after_an_absence_history_is_asked_again_as_soon_as_anybody_had_an_answer() -> None:
    """Until then steps run without it, and do not wait for it each time."""
    history, away = History(load_settings()), True

    async def places(jobs: list[str]) -> dict[str, tuple[int, int, str]]:
        if away:
            raise ConnectionError("away")
        return dict.fromkeys(jobs, (1, 1, str(JobState.SUCCEEDED)))

    history._jobs.places = places  # type: ignore[method-assign]
    try:
        assert not await history.is_past(make_work())
        away = False
        assert not await history.is_past(make_work()), "it is not asked for some seconds"
        history.answered()
        assert await history.is_past(make_work())
    finally:
        await history.close()
