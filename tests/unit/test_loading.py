"""Finding a handler project's registry: what is wrong is said, clashes of names above all."""

from __future__ import annotations

import itertools
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

import config
from consumers import Context, Registry
from consumers.executor import Executor
from consumers.loading import LoadError, clashes, load_registry
from schemas import Outcome

ROOT = Path(__file__).resolve().parents[2]
GOOD = """
from consumers import Registry
jobs = Registry()
@jobs.handler("a.b", isolate="process")
def run(payload): return payload
"""
Project = Callable[..., str]
_numbers = itertools.count()


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Project]:
    """Makes a folder the current one, with a handler module of a fresh name, and gives the name."""
    monkeypatch.setattr(sys, "path", [entry for entry in sys.path if entry])
    monkeypatch.chdir(tmp_path)
    before = set(sys.modules)

    def make(source: str, **files: str) -> str:
        name = f"project_handlers_{next(_numbers)}"
        (tmp_path / f"{name}.py").write_text(source)
        for module, text in files.items():
            (tmp_path / f"{module}.py").write_text(text)
        return name

    yield make
    for module in set(sys.modules) - before:
        del sys.modules[module]


def test_a_registry_is_found_in_the_current_folder(project: Project) -> None:
    """Without installing the project or setting a path."""
    registry = load_registry(f"{project(GOOD)}:jobs")
    assert isinstance(registry, Registry)
    assert registry.get("a.b") is not None


@pytest.mark.parametrize("target", ["", "module", "module:", ":jobs", ":"])
def test_a_malformed_target_shows_an_example(target: str) -> None:
    """MODULE:REGISTRY, with one that exists."""
    with pytest.raises(LoadError, match=r"MODULE:REGISTRY, for example examples\.handlers:jobs"):
        load_registry(target)


@pytest.mark.parametrize(
    ("source", "attribute", "said"),
    [
        (GOOD, "job", "has no job; it has the registry jobs"),
        ("x = 1", "jobs", "has no jobs"),
        ("jobs = {}", "jobs", r"is not a Registry \(from consumers import Registry\)"),
        ("from consumers import Registry\njobs = Registry()", "jobs", r"no handlers; .*@jobs\.handler"),
        ("import nothing_like_it", "jobs", "cannot import .*ModuleNotFoundError.*nothing_like_it"),
        ("1/0", "jobs", "cannot import .*ZeroDivisionError"),
        ("def", "jobs", "cannot import .*SyntaxError"),
    ],
)
def test_what_is_wrong_with_a_module_is_said(project: Project, source: str, attribute: str, said: str) -> None:
    """Each with what to do about it."""
    name = project(source)
    with pytest.raises(LoadError, match=said):
        load_registry(f"{name}:{attribute}")


def test_a_module_that_does_not_exist() -> None:
    """Named, with the import's own words."""
    with pytest.raises(LoadError, match=r"cannot import no\.such\.module"):
        load_registry("no.such.module:jobs")


@pytest.mark.parametrize("name", ["config", "schemas"])
def test_a_project_with_a_module_of_our_name_is_told_what_clashes(project: Project, name: str, tmp_path: Path) -> None:
    """The import finds ours in its place; the error names the project's file and says to rename it."""
    handlers = project(f"from {name} import SMTP_HOST\n" + GOOD, **{name: 'SMTP_HOST = "mail"'})
    with pytest.raises(LoadError) as caught:
        load_registry(f"{handlers}:jobs")
    assert str(tmp_path / f"{name}.py") in str(caught.value)
    assert "rename yours" in str(caught.value)


@pytest.mark.parametrize("name", ["config", "consumers", "dispatcher", "schemas"])
def test_a_package_of_our_name_counts_as_well(tmp_path: Path, name: str) -> None:
    """config/__init__.py is as much a clash as config.py; our own folder is none."""
    (tmp_path / name).mkdir()
    (tmp_path / name / "__init__.py").touch()
    (tmp_path / f"{name}s.py").touch()
    assert clashes(tmp_path) == [str(tmp_path / name / "__init__.py")]
    assert config.__file__ is not None
    assert clashes(ROOT) == []
    assert clashes(tmp_path / "nowhere") == []


def test_a_faulty_module_without_a_clash_is_not_blamed_on_one(project: Project) -> None:
    """The hint is given only where such a file exists."""
    name = project("1/0")
    with pytest.raises(LoadError) as caught:
        load_registry(f"{name}:jobs")
    assert "rename" not in str(caught.value)


def test_a_project_with_such_a_module_that_its_handlers_do_not_import_runs(project: Project) -> None:
    """A file that merely lies there stops nothing."""
    assert len(load_registry(f"{project(GOOD, config='1/0', schemas='1/0')}:jobs")) == 1


async def test_neither_does_it_stop_child_processes(project: Project, monkeypatch: pytest.MonkeyPatch) -> None:
    """The children find our packages first, as the worker does, whatever lies in the current folder."""
    name = project(GOOD, config="1/0", schemas="1/0", dispatcher="1/0", consumers="1/0")
    handler = load_registry(f"{name}:jobs").get("a.b")
    assert handler is not None
    monkeypatch.delenv("PYTHONPATH", raising=False)  # a relative path there would mean the project's folder
    executor = Executor(1, f"{name}:jobs", 1_000)
    execution, result = await executor.run(handler, {"a": 1}, Context("i", "shop", "a.b", 1, 1, "e"), 60)
    await executor.close()
    assert (execution.outcome, result) == (Outcome.SUCCEEDED, {"a": 1})
