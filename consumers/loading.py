"""Finding a handler project's registry, with errors that say what is wrong."""

from __future__ import annotations

import importlib
import sys
from pathlib import Path
from typing import Any

from consumers.registry import Registry
from dispatcher.core.errors import DispatcherError

#: Our top-level packages; a handler project may use these names too.
COMMON_NAMES = ("schemas", "config", "consumers", "dispatcher")


class LoadError(DispatcherError):
    """The registry cannot be loaded; the sentence says why."""


def load_registry(target: str) -> Registry:
    """Import ``module:registry``, with the current folder importable.

    Raises:
        LoadError: the target is malformed, the module cannot be imported, or holds no such registry.
    """
    module_name, _, attribute = target.partition(":")
    if not module_name or not attribute:
        raise LoadError(f'"{target}" must be MODULE:REGISTRY, for example examples.handlers:jobs')
    here = str(Path.cwd())
    if "" not in sys.path and here not in sys.path:
        sys.path.insert(0, here)
    try:
        module = importlib.import_module(module_name)
    except Exception as error:
        raise LoadError(f"cannot import {module_name}: {type(error).__name__}: {error}{_clash_hint()}") from error
    registry = _attribute(module, attribute)
    if not isinstance(registry, Registry):
        raise LoadError(f"{target} is not a Registry (from consumers import Registry)")
    if not len(registry):
        raise LoadError(f"{target} has no handlers; declare one with @{attribute}.handler(...)")
    return registry


def _attribute(module: Any, name: str) -> Any:
    try:
        return getattr(module, name)
    except AttributeError:
        found = [n for n, v in vars(module).items() if isinstance(v, Registry)]
        hint = f"; it has the registry {found[0]}" if found else ""
        raise LoadError(f"module {module.__name__} has no {name}{hint}") from None


def clashes(folder: Path) -> list[str]:
    """Modules in a folder that have the name of one of ours and would not be found under it."""
    found = []
    for name in COMMON_NAMES:
        ours = Path(str(sys.modules[name].__file__)).resolve() if name in sys.modules else None
        for candidate in (folder / f"{name}.py", folder / name / "__init__.py"):
            if candidate.exists() and candidate.resolve() != ours:
                found.append(str(candidate))
    return found


def _clash_hint() -> str:
    found = clashes(Path.cwd())
    if not found:
        return ""
    return (
        f". Your project has {', '.join(found)}, a name that Job Dispatcher uses too ({', '.join(COMMON_NAMES)} are "
        "taken): rename yours or put it inside a package of your own"
    )
