"""The exceptions that a handler's ``on`` and ``never`` name, as the wire format has them: names of classes.

A class is named with its module, so that it means itself and no namesake. A name that was given as such is kept, but
for other names of the same class (``IOError`` is `OSError`, ``requests.Timeout`` is `requests.exceptions.Timeout`):
failures are known by the name that their class was defined under. What cannot be the name of an exception is refused
where that can be known without importing anything.
"""

from __future__ import annotations

import builtins
import importlib.util
import re
import sys
from types import ModuleType
from typing import Any

#: A class by its short name, or by its module and its name.
_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*(\.[A-Za-z_][A-Za-z0-9_]*)*")


def exception_name(given: Any) -> str:
    """The name under which an exception class is matched.

    Args:
        given: a class, or its name, short or with its module.

    Raises:
        ValueError: no exception can have it; the sentence says why.
    """
    if isinstance(given, str):
        return _checked(given)
    if not _is_exception(given):
        raise ValueError(f"{given!r} is no exception class")
    name = _full_name(given)
    return name if _NAME.fullmatch(name) else given.__name__  # a class inside a function has no name to find it by


def _is_exception(value: Any) -> bool:
    return isinstance(value, type) and issubclass(value, BaseException)


def _full_name(exception: type[BaseException]) -> str:
    module = exception.__module__
    return exception.__name__ if module == "builtins" else f"{module}.{exception.__qualname__}"


def _checked(name: str) -> str:
    if not _NAME.fullmatch(name):
        raise ValueError(
            f'"{name}" is no class name: give a short one (ConnectionError) or one with its module '
            "(requests.exceptions.Timeout)"
        )
    found = _find(name)
    if found is None:
        return name
    if not _is_exception(found):
        raise ValueError(f'"{name}" is no exception class, so it never matches')
    return _full_name(found)


def _find(name: str) -> Any:
    """What a name stands for; None where that is not known: a short name may be anybody's.

    Raises:
        ValueError: nothing has this name.
    """
    if "." not in name:
        return getattr(builtins, name, None)
    words = name.split(".")
    for end in range(len(words) - 1, 0, -1):
        module = sys.modules.get(".".join(words[:end]))
        if module is not None:
            return None if _unfinished(module) else _attribute(module, words[end:], name)
    if not _exists(words[0]):
        raise ValueError(f'"{name}" never matches: there is no module {words[0]}')
    return None  # not imported yet, which is not ours to do


def _unfinished(module: ModuleType) -> bool:
    """Whether the module is still being imported, as the one that declares the handler is: the class may follow."""
    spec = getattr(module, "__spec__", None)
    return spec is None or getattr(spec, "_initializing", False)


def _attribute(module: ModuleType, words: list[str], name: str) -> Any:
    found: Any = module
    for i, word in enumerate(words):
        if hasattr(found, word):
            found = getattr(found, word)
        elif i == 0 and len(words) > 1 and hasattr(module, "__path__") and _exists(f"{module.__name__}.{word}"):
            return None  # a module of this package that is not imported yet
        else:
            raise ValueError(f'"{name}" never matches: {module.__name__} has no {".".join(words)}')
    return found


def _exists(module: str) -> bool:
    try:
        return importlib.util.find_spec(module) is not None
    except (ImportError, ValueError):
        return False
