"""Prometheus' rules: about metrics and labels that there are, each alert explained and tested both ways."""

from __future__ import annotations

import re
from collections import Counter
from itertools import chain
from pathlib import Path
from typing import Any

import yaml

from dispatcher.edges import metrics

ROOT = Path(__file__).parents[2]
RULES = ROOT / "helm" / "files" / "rules"
CASES = ROOT / "tests" / "rules"
PAGE = ROOT / "docs" / "alerts.md"

#: Labels that a target has, and that our rules give.
GIVEN = {"namespace", "instance", "job", "class"}
#: Words in an expression that are no metric of ours.
SERIES = re.compile(r"(?<![\w:])(dispatcher_\w+)(?![\w:])(?:\{([^}]*)\})?")
#: Series of a rule: level, metric and operation.
RECORDED = re.compile(r"(?<![\w:])\w*:\w+:\w+")


def groups() -> list[dict[str, Any]]:
    """Every group of every file."""
    return list(chain.from_iterable(yaml.safe_load(path.read_text())["groups"] for path in RULES.glob("*.yaml")))


def rules(kind: str) -> list[dict[str, Any]]:
    """Every rule of a kind: ``alert`` or ``record``."""
    return [rule for group in groups() for rule in group["rules"] if kind in rule]


def labels_of(series: str) -> set[str]:
    """The labels of a series of ours; fails where no metric has it."""
    by_name = {metric.name: metric for metric in metrics.ALL}
    plain = re.sub(r"_(bucket|sum|count)$", "", series)
    if series in by_name:
        assert by_name[series].kind != "histogram", f"{series} is a histogram: it has _bucket, _sum and _count alone"
        return set(by_name[series].labels)
    assert plain in by_name, f"no metric has the series {series}"
    assert by_name[plain].kind == "histogram", f"{plain} is no histogram"
    return set(by_name[plain].labels) | ({"le"} if series.endswith("_bucket") else set())


def test_every_series_exists_and_has_the_labels_by_which_it_is_chosen() -> None:
    """In every expression."""
    seen = set()
    for rule in rules("alert") + rules("record"):
        for series, chosen in SERIES.findall(rule["expr"]):
            seen.add(series)
            asked = set(re.findall(r"(\w+)\s*(?:=~|!~|!=|=)", chosen))
            assert asked <= labels_of(series) | GIVEN, f"{series}: {asked}"
    assert len(seen) > 20


def test_what_is_summed_by_is_a_label() -> None:
    """Of ours, or one that is given; a misspelt one would sum everything."""
    known = set(chain.from_iterable(metric.labels for metric in metrics.ALL)) | GIVEN | {"le"}
    for rule in rules("alert") + rules("record"):
        for names in re.findall(r"\b(?:by|on)\s*\(([^)]*)\)", rule["expr"]):
            assert {name.strip() for name in names.split(",") if name.strip()} <= known, rule


def test_what_is_asked_of_rules_is_recorded() -> None:
    """And named for the labels that it is left with."""
    recorded = {rule["record"] for rule in rules("record")}
    for rule in rules("alert") + rules("record"):
        assert set(RECORDED.findall(rule["expr"])) <= recorded, rule
    for rule in rules("record"):
        level = set(rule["record"].split(":")[0].split("_")) - {""}
        kept = {name.strip() for names in re.findall(r"\bby\s*\(([^)]*)\)", rule["expr"]) for name in names.split(",")}
        assert level == (kept | set(rule.get("labels", ()))) - {"namespace", "le"}, rule["record"]


def test_groups_and_recorded_series_have_names_of_their_own() -> None:
    """Two rules for one series would show one of the two, now and then."""
    assert [name for name, count in Counter(group["name"] for group in groups()).items() if count > 1] == []
    series = Counter((rule["record"], *rule.get("labels", {}).items()) for rule in rules("record"))
    assert [name for name, count in series.items() if count > 1] == []


def test_every_alert_says_what_it_means_and_where_to_read_on() -> None:
    """Its severity, a summary, a description, and its section of docs/alerts.md."""
    for rule in rules("alert"):
        assert rule["labels"]["severity"] in {"critical", "warning"}
        assert set(rule["annotations"]) == {"summary", "description", "runbook_url"}
        assert "{{" not in rule["annotations"]["description"], "the test of its cases fills it in as it is"
        assert rule["annotations"]["runbook_url"] == f"docs/alerts.md#{rule['alert'].lower()}"


def test_every_alert_has_its_section_and_every_section_its_alert() -> None:
    """In the same order as in the rules."""
    sections = re.findall(r"^### (\w+)$", PAGE.read_text(), re.MULTILINE)
    files = [RULES / "alerts.yaml", RULES / "slo.yaml"]
    named = [
        rule["alert"]
        for path in files
        for group in yaml.safe_load(path.read_text())["groups"]
        for rule in group["rules"]
        if "alert" in rule
    ]
    assert sections == list(dict.fromkeys(named))


def test_what_the_page_names_is_recorded() -> None:
    """Series of rules in the text."""
    recorded = {rule["record"] for rule in rules("record")}
    named = set(re.findall(r"`(\w*:dispatcher_\w+:\w+)`", PAGE.read_text()))
    assert named
    assert named <= recorded


def test_every_alert_fires_in_one_case_and_stays_silent_in_another() -> None:
    """Those of tests/rules, which promtool runs; where alerts share a name, each of them fires."""
    fires, silent = set(), set()
    for case in chain.from_iterable(yaml.safe_load(path.read_text())["tests"] for path in CASES.glob("*.yaml")):
        assert case["name"].split(":")[0] in {"fires", "silent"}, case["name"]
        # one that fires may be asked before its `for` is over, too
        assert any(asked["exp_alerts"] for asked in case["alert_rule_test"]) == case["name"].startswith("fires")
        for asked in case["alert_rule_test"]:
            silent |= {asked["alertname"]} if case["name"].startswith("silent") else set()
            fires |= {(asked["alertname"], each["exp_labels"].get("role")) for each in asked["exp_alerts"]}
    for rule in rules("alert"):
        assert rule["alert"] in silent, f"{rule['alert']} has no case in which it stays silent"
        role = rule["labels"].get("role")
        assert any(name == rule["alert"] and role in (None, of) for name, of in fires), f"{rule['alert']} never fires"


def test_objectives_are_asked_of_buckets_that_there_are() -> None:
    """A threshold between two buckets would count nothing."""
    text = (RULES / "slo.yaml").read_text()
    asked = set(re.findall(r'le=~"(\d+)\(\[\.\]0\)\?"', text))
    assert asked == {"1", "30", "1800"}
    assert {float(each) for each in asked} <= set(metrics.wait_seconds._kwargs["buckets"])
