"""promtool on our rules: they are valid, and each alert fires and stays silent in the cases of tests/rules."""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import Any

import pytest
import yaml

from dev.prometheus import promtool
from tests.monitoring import RULES

pytestmark = pytest.mark.integration

CASES = sorted((Path(__file__).parents[1] / "rules").glob("*.yaml"))
FILES = sorted(RULES.glob("*.yaml"))


def read(path: Path) -> Any:
    """A YAML document."""
    return yaml.safe_load(path.read_text())


@cache
def alerts() -> list[dict[str, Any]]:
    """Every alerting rule."""
    documents = [read(path) for path in FILES]
    return [rule for each in documents for group in each["groups"] for rule in group["rules"] if "alert" in rule]


def completed(name: str, expected: dict[str, Any]) -> dict[str, Any]:
    """An expected alert with what its rule says of it: labels, description and runbook_url."""
    given = expected["exp_labels"]
    (rule,) = [
        rule
        for rule in alerts()
        if rule["alert"] == name and all(given.get(label, value) == value for label, value in rule["labels"].items())
    ]
    labels, annotations = rule["labels"] | given, rule["annotations"] | expected["exp_annotations"]
    return {"exp_labels": labels, "exp_annotations": annotations}


def test_the_rules_are_valid() -> None:
    """As Prometheus reads them, in all files together."""
    done = promtool("check", "rules", *FILES)
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.count("SUCCESS") == len(FILES) == 3


@pytest.mark.parametrize("path", CASES, ids=lambda path: path.stem)
def test_alerts_fire_and_stay_silent(path: Path, tmp_path: Path) -> None:
    """The cases of a file."""
    document = read(path)
    names = ["slo.yaml"] if path.stem == "slo" else ["recording.yaml", "alerts.yaml"]
    document["rule_files"] = [str(RULES / name) for name in names]
    # what is recorded first: an alert sees it at once then, and the cases' figures are the same each time
    document["group_eval_order"] = [group["name"] for name in names for group in read(RULES / name)["groups"]]
    for case in document["tests"]:
        for asked in case["alert_rule_test"]:
            asked["exp_alerts"] = [completed(asked["alertname"], each) for each in asked["exp_alerts"]]
    complete = tmp_path / path.name
    complete.write_text(yaml.safe_dump(document))
    done = promtool("test", "rules", complete)
    assert done.returncode == 0, done.stdout + done.stderr
