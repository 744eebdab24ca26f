"""What `make upgrade` publishes, withholds and finds."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import pytest

from dev.process import ServerError
from tests.faults import versions
from tests.faults.executions import Execution
from tests.faults.fleet import ROOT, Death
from tests.faults.ledger import Evidence, Scrape
from tests.faults.load import Published
from tests.faults.plan import Job, Step, plain_job
from tests.faults.upgrade_load import PARTS, early_starts, make_upgrade_plan, uses
from tests.faults.upgrading import LONGEST, Rehearsal

PLAN = make_upgrade_plan(4_000, 1)


def test_a_plan_has_jobs_of_all_kinds() -> None:
    """Those of make chaos, and its own; the same seed chooses the same."""
    types = {job.type for job in PLAN}
    assert types >= {f"chaos.{kind}" for kind in ("plain", "flaky", "hopeless", "slow", "snooze", "delayed")}
    assert types >= {"chaos.child", "chaos.thread", "chaos.group"}
    fields = Counter(name for job in PLAN for name in job.fields)
    assert fields.keys() >= {"delay", "expires", "deadline", "timeout", "tags", "group", "unique", "retry"}
    assert any(job.again is not None for job in PLAN)
    assert make_upgrade_plan(4_000, 1) == PLAN
    assert sum(PARTS.values()) == 100


def test_a_plan_lasts_longer_than_a_rehearsal() -> None:
    """Each id is there once, so that a plan of its length can be published."""
    assert len({job.id for job in PLAN}) == len(PLAN)
    assert LONGEST * Rehearsal().rate > len(PLAN)


def test_what_an_old_version_lacks_is_withheld() -> None:
    """A job that is sent again needs a version that tells ids apart."""
    member = next(job for job in PLAN if job.type == "chaos.group")
    assert uses(member, {"group"})
    assert not uses(member, {"unique"})
    again = Job("j", "chaos.plain", {"ms": 1}, "normal", "succeeded", (Step(1, 0, "succeeded"),), {}, again=1.0)
    assert uses(again, {"id"})
    assert not uses(plain_job("j"), {"id", "group", "unique", "delay"})


@pytest.mark.parametrize(("started", "found"), [(104.9, 1), (105.0, 0), (106.0, 0)])
def test_a_start_before_its_delay_is_found(started: float, found: int) -> None:
    """Counted from the moment before its publish."""
    job = plain_job("j", delay=5.0)
    published = Published({"j": job}, {"j": 100.0})
    execution = Execution(("j", 1, 1, 0), "e", 1, started, started + 1)
    assert len(early_starts(Evidence(published, [execution], []))) == found


def test_an_intake_that_stopped_has_taken_its_count_with_it() -> None:
    """Nobody knows then how many messages were accepted."""
    scrapes = [Scrape("intake", 2, Counter({("jobs_accepted", ""): 3}))]
    assert Evidence(Published(), [], [], scrapes=scrapes).accepted() == 3
    stopped = [Death("intake-1", 1, 0.0, ours=True, code=0)]
    assert Evidence(Published(), [], [], scrapes=scrapes, stopped=stopped).accepted() is None
    assert Evidence(Published(), [], [], stopped=stopped).dead == set()


def test_a_version_that_stops_in_good_order_excuses_nothing() -> None:
    """What it ran is in history, unlike of one that was killed."""
    execution = Execution(("j", 1, 1, 0), "e", 7, 1.0, 2.0)
    of = {"published": Published({"j": plain_job("j")}, {"j": 0.0}), "executions": [execution], "documents": []}
    death = Death("worker-1", 7, 3.0, ours=True, code=0)
    assert not Evidence(**of, stopped=[death]).excused(execution)
    assert Evidence(**of, deaths=[death]).excused(execution)


def test_a_folder_is_laid_out_apart(tmp_path: Path) -> None:
    """Its packages, and the handlers beside them; no other part of the tests."""
    code = versions.lay_out(str(ROOT), "new", tmp_path)
    assert code.folder == tmp_path / "new"
    assert {path.name for path in code.folder.iterdir()} == {*versions.PACKAGES, "requirements"}
    assert {str(p.relative_to(tmp_path / "handlers")) for p in (tmp_path / "handlers").rglob("*.py")} == set(
        versions.HANDLERS
    )
    assert versions.not_known(code) == {"depends_on", "callback", "template"}
    asked = versions.run(code, ["-c", "import dispatcher, tests.faults.upgrade_handlers as h; print(dispatcher, h)"])
    assert str(tmp_path / "new") in asked.stdout
    assert str(tmp_path / "handlers") in asked.stdout


def test_a_ref_that_is_not_there_is_told(tmp_path: Path) -> None:
    """In a sentence."""
    with pytest.raises(ServerError, match=r"git archive: .*; is the whole history here\?"):
        versions.lay_out("no-such-ref", "old", tmp_path)
