"""The files of .github: valid, audited, and running nothing but targets that the Makefile has."""

from __future__ import annotations

import re
import subprocess
import sys
import tomllib
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.acceptance.readme import ROOT

GITHUB = ROOT / ".github"
WORKFLOWS = sorted((GITHUB / "workflows").glob("*.yml"))
BIN = Path(sys.executable).parent
TARGETS = set(re.findall(r"^([a-z][a-z-]*):", (ROOT / "Makefile").read_text(encoding="utf-8"), re.MULTILINE))


def load(path: Path) -> dict[str, Any]:
    """A workflow; the key `on` is read as true by YAML 1.1."""
    loaded: dict[str, Any] = yaml.safe_load(path.read_text(encoding="utf-8"))
    return loaded


JOBS = [pytest.param(job, id=f"{path.stem}.{name}") for path in WORKFLOWS for name, job in load(path)["jobs"].items()]
SCRIPTS = [
    pytest.param(step["run"], id=f"{path.stem}.{name}.{number}")
    for path in WORKFLOWS
    for name, job in load(path)["jobs"].items()
    for number, step in enumerate(job["steps"])
    if "run" in step
]


def targets(script: str) -> set[str]:
    """The targets of make that a script runs."""
    calls = re.findall(r"(?:^|\$\(|&&|\|\||;)\s*make ([^|;&)\n]*)", script, re.MULTILINE)
    return {word for call in calls for word in re.sub(r'"[^"]*"', "", call).split() if re.fullmatch("[a-z-]+", word)}


def passes(*command: str | Path) -> str:
    """What a program says of our files; it has to be content."""
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_the_files_fit_their_schemas() -> None:
    """As GitHub publishes them."""
    check = BIN / "check-jsonschema"
    passes(check, "--builtin-schema", "vendor.github-workflows", *WORKFLOWS)
    passes(check, "--builtin-schema", "vendor.dependabot", GITHUB / "dependabot.yml")
    config, *forms = sorted((GITHUB / "ISSUE_TEMPLATE").glob("*.yml"), key=lambda path: path.stem != "config")
    passes(check, "--builtin-schema", "vendor.github-issue-config", config)
    passes(check, "--builtin-schema", "vendor.github-issue-forms", *forms)


def test_zizmor_finds_nothing() -> None:
    """Injection into scripts, permissions that are too wide, credentials that stay, caches that can be poisoned."""
    passes(BIN / "zizmor", "--offline", "--quiet", GITHUB)


def test_there_is_a_workflow_for_each_purpose() -> None:
    """So that the other tests look at something."""
    assert {path.stem for path in WORKFLOWS} >= {"ci", "audit", "update", "release"}
    assert len(SCRIPTS) > 15
    assert {"check", "test", "dist", "chart", "docs", "image", "release-check"} <= set().union(
        *(targets(str(script.values[0])) for script in SCRIPTS)
    )


@pytest.mark.parametrize("script", SCRIPTS)
def test_scripts_are_bash_and_run_targets_that_exist(script: str) -> None:
    """Bash can read them, and every `make` names targets of the Makefile."""
    checked = subprocess.run(["bash", "-n"], input=script, capture_output=True, text=True)
    assert checked.returncode == 0, checked.stderr
    assert "${{" not in script, "what GitHub fills in reaches a script by its environment"
    assert targets(script) - TARGETS == set()


@pytest.mark.parametrize("path", WORKFLOWS, ids=lambda path: path.stem)
def test_a_workflow_may_do_nothing_by_itself(path: Path) -> None:
    """Each job asks for what it needs; runs do not pile up."""
    workflow = load(path)
    assert workflow["permissions"] == {}
    assert "concurrency" in workflow
    assert workflow["defaults"]["run"]["shell"] == "bash"  # with pipefail


@pytest.mark.parametrize("job", JOBS)
def test_a_job_has_a_name_an_end_and_a_system(job: dict[str, Any]) -> None:
    """And says what it may do."""
    assert job["name"]
    assert 5 <= job["timeout-minutes"] <= 60
    assert job["runs-on"] == "ubuntu-24.04"
    assert job["permissions"]


def test_actions_are_pinned_by_commit() -> None:
    """With the version beside it; one action has one pin."""
    pins: dict[str, set[str]] = {}
    for path in WORKFLOWS:
        for line in re.findall(r"uses: (.*)", path.read_text(encoding="utf-8")):
            found = re.fullmatch(r"([\w-]+/[\w-]+)@([0-9a-f]{40} # v\d+\.\d+\.\d+)", line)
            assert found, f"{path.name}: {line}"
            pins.setdefault(found[1], set()).add(found[2])
    assert len(pins) > 8
    assert {action: pin for action, pin in pins.items() if len(pin) > 1} == {}


def test_every_python_that_we_claim_is_tested() -> None:
    """`make check` on each version among the classifiers, and the tests on servers too."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    claimed = re.findall(r"Python :: (3\.\d+)", "\n".join(project["classifiers"]))
    jobs = load(GITHUB / "workflows" / "ci.yml")["jobs"]
    assert jobs["check"]["strategy"]["matrix"]["python"] == claimed
    assert [row["python"] for row in jobs["servers"]["strategy"]["matrix"]["include"]] == claimed


@pytest.mark.parametrize(
    ("script", "said"),
    [
        ("make check PYTHON=python", {"check"}),
        ('make test ARGS="tests/unit -k make"', {"test"}),
        ("make dist licences && make no-such", {"dist", "licences", "no-such"}),
        ('x --y "$(make image-name)"', {"image-name"}),
        ("cmake x; echo make y\nmake", set()),
    ],
)
def test_targets_are_read_from_scripts(script: str, said: set[str]) -> None:
    """Words after make that are neither variables nor quoted."""
    assert targets(script) == said
