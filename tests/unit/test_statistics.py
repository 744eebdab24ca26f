"""Statistics: percentiles from histograms, the report's shape, and adding up cells in any grouping."""

from __future__ import annotations

import copy
import math
from collections import Counter
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dispatcher.core.statistics import Cell, bucket, bucket_ms, percentiles, report

STATES = st.dictionaries(st.sampled_from(["succeeded", "failed", "queued"]), st.integers(1, 50)).map(Counter)
HISTOGRAMS = st.dictionaries(st.integers(-1, 900), st.integers(1, 50), max_size=5).map(Counter)
CELLS = st.builds(
    Cell,
    type=st.sampled_from(["a", "b", ""]),
    priority=st.sampled_from(["high", "low", None]),
    app=st.sampled_from(["shop", "crm"]),
    states=STATES,
    retries=st.integers(0, 9),
    starts=st.integers(0, 99),
    breached=st.integers(0, 9),
    wait=HISTOGRAMS,
    run=HISTOGRAMS,
)


def content(cell: Cell) -> tuple[Any, ...]:
    """What a cell counts."""
    return cell.states, cell.retries, cell.starts, cell.breached, cell.wait, cell.run


def added(*cells: Cell) -> Cell:
    """The sum, from an empty cell."""
    total = Cell("", None, "")
    for cell in cells:
        total.add(cell)
    return total


@given(st.lists(st.one_of(st.integers(0, 20), st.integers(0, 10**9)), min_size=1, max_size=300))
def test_percentiles_are_within_two_percent_of_a_sort(times: list[int]) -> None:
    """Nearest rank on the plain list, for whole milliseconds as the documents hold them."""
    found = percentiles(Counter(map(bucket, times)))
    ordered = sorted(times)
    for p in (50, 95, 99):
        exact = ordered[math.ceil(len(ordered) * p / 100) - 1]
        assert found[f"p{p}"] == pytest.approx(exact, rel=0.02)


def test_every_small_time_is_within_two_percent() -> None:
    """Where buckets are narrower than a millisecond, rounding must not add up."""
    for ms in range(5_000):
        assert bucket_ms(bucket(ms)) == pytest.approx(ms, rel=0.02), ms


@given(st.floats(0, 1e10), st.floats(0, 1e10))
def test_longer_times_never_have_lower_buckets(a: float, b: float) -> None:
    """Order is kept, or a percentile could fall as times grow."""
    assert (bucket(a) <= bucket(b)) or a > b


def test_nothing_measured_is_null() -> None:
    """Not 0, which would be a time."""
    assert percentiles({}) == {"p50": None, "p95": None, "p99": None}
    assert percentiles({-1: 3}) == {"p50": 0.0, "p95": 0.0, "p99": 0.0}


def test_the_report_has_the_shape_of_the_contract() -> None:
    """total, by_type, by_priority, by_app; states with their counts, retries, and percentiles below; starts apart."""
    cells = [
        Cell("email.send", "high", "shop", Counter(succeeded=3, failed=1), 2, 6, Counter({0: 4}), Counter({35: 3}), 2),
        Cell("email.send", "low", "crm", Counter(succeeded=1), 0, 1, Counter({0: 1})),
        Cell("", None, "shop", Counter(rejected=2)),
    ]
    times = {"p50": 1.0, "p95": 1.0, "p99": 1.0}
    none = {"p50": None, "p95": None, "p99": None}
    two = {"p50": 2.0, "p95": 2.0, "p99": 2.0}
    assert report(cells) == {
        "total": {"failed": 1, "rejected": 2, "succeeded": 4, "retries": 2},
        "by_type": {
            "": {"rejected": 2, "retries": 0, "wait_ms": none, "run_ms": none},
            "email.send": {"failed": 1, "succeeded": 4, "retries": 2, "wait_ms": times, "run_ms": two},
        },
        "by_priority": {
            "high": {"failed": 1, "succeeded": 3, "retries": 2, "wait_ms": times, "run_ms": two},
            "low": {"succeeded": 1, "retries": 0, "wait_ms": times, "run_ms": none},
        },
        "by_app": {
            "crm": {"succeeded": 1, "retries": 0, "wait_ms": times, "run_ms": none},
            "shop": {
                "failed": 1,
                "rejected": 2,
                "succeeded": 3,
                "retries": 2,
                "wait_ms": times,
                "run_ms": two,
            },
        },
        "starts": {
            "total": 7,
            "by_type": {"": 0, "email.send": 7},
            "by_priority": {"high": 6, "low": 1},
            "by_app": {"crm": 1, "shop": 6},
        },
        "breached": {
            "total": 2,
            "by_type": {"": 0, "email.send": 2},
            "by_priority": {"high": 2, "low": 0},
            "by_app": {"crm": 0, "shop": 2},
        },
    }
    nothing = {"by_type": {}, "by_priority": {}, "by_app": {}}
    apart = {name: {"total": 0, **nothing} for name in ("starts", "breached")}
    assert report([]) == {"total": {"retries": 0}, **nothing, **apart}


@given(CELLS, CELLS, CELLS)
def test_adding_cells_is_associative_and_commutative(a: Cell, b: Cell, c: Cell) -> None:
    """Minutes may be added up in any grouping and order, and the addends stay as they were."""
    before = copy.deepcopy((a, b, c))
    left = added(added(a, b), c)
    assert content(left) == content(added(a, added(b, c))) == content(added(c, b, a))
    assert (a, b, c) == before


@given(st.lists(CELLS, max_size=8), st.data())
def test_a_report_does_not_depend_on_how_cells_are_cut(cells: list[Cell], data: st.DataObject) -> None:
    """Any order gives the same report, and the groups add up to the total."""
    whole = report(copy.deepcopy(cells))
    assert report(data.draw(st.permutations(cells))) == whole
    for group in ("by_type", "by_app"):
        for state in ("succeeded", "failed", "queued", "retries"):
            assert sum(one.get(state, 0) for one in whole[group].values()) == whole["total"].get(state, 0)
        assert sum(whole["starts"][group].values()) == whole["starts"]["total"]
