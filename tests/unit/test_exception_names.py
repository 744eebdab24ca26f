"""Exceptions that a policy names: classes mean themselves, other names of a class are understood, mistakes refused."""

from __future__ import annotations

import socket
import sys
import types
from concurrent.futures import TimeoutError as FuturesTimeoutError
from typing import Any

import pytest

from consumers import RegistryError, Retry
from consumers.exception_names import exception_name
from dispatcher.core.retry import class_names


class Timeout(Exception):
    """A namesake of many."""


def local() -> type[Exception]:
    """A class without a name to find it by."""

    class Local(Exception):
        """Made anew by each call."""

    return Local


@pytest.mark.parametrize(
    ("given", "name"),
    [
        (ConnectionError, "ConnectionError"),
        ("ConnectionError", "ConnectionError"),
        ("builtins.ConnectionError", "ConnectionError"),
        (Timeout, f"{__name__}.Timeout"),
        (local(), "Local"),
        ("Timeout", "Timeout"),
        (f"{__name__}.Timeout", f"{__name__}.Timeout"),
        (IOError, "OSError"),
        ("IOError", "OSError"),
        ("socket.timeout", "TimeoutError"),
        (socket.herror, "socket.herror"),
        (FuturesTimeoutError, "TimeoutError"),
        ("concurrent.futures.CancelledError", "concurrent.futures._base.CancelledError"),
        ("wave.Error", "wave.Error"),  # of a module that is there, and not imported
        ("wave", "wave"),
        ("NoBuiltin", "NoBuiltin"),
    ],
    ids=str,
)
def test_an_exception_is_named_as_its_class_is(given: Any, name: str) -> None:
    """So that what it names is found among the names of what is raised."""
    sys.modules.pop("wave", None)
    assert exception_name(given) == name
    assert "wave" not in sys.modules
    if isinstance(given, type):
        assert name in class_names(given)


@pytest.mark.parametrize(
    ("given", "sentence"),
    [
        ("Connection Error", '"Connection Error" is no class name'),
        ("ConnectionError()", "is no class name"),
        ("requests..Timeout", "is no class name"),
        ("", "is no class name"),
        ("Zeitüberschreitung", "is no class name"),
        ("int", '"int" is no exception class, so it never matches'),
        (int, "<class 'int'> is no exception class"),
        (3, "3 is no exception class"),
        (ValueError("x"), "is no exception class"),
        ("builtins.ConectionError", '"builtins.ConectionError" never matches: builtins has no ConectionError'),
        ("socket.timeouts", "socket has no timeouts"),
        ("json.nothing.Error", "json has no nothing.Error"),
        ("socket.socket", "is no exception class"),
        (f"{__name__}.Timeout.Inner", "has no Timeout.Inner"),
        ("reqests.exceptions.Timeout", "there is no module reqests"),
    ],
    ids=str,
)
def test_what_can_never_match_is_refused(given: Any, sentence: str) -> None:
    """When the handler is declared, by a sentence that says why."""
    for field in ("on", "never"):
        with pytest.raises(RegistryError) as refused:
            Retry(**{field: (given,)}).spec()
        assert str(refused.value).startswith(f"Retry({field}=…): ")
        assert sentence in str(refused.value)


def test_a_module_under_import_may_still_get_its_class(monkeypatch: pytest.MonkeyPatch) -> None:
    """Handlers are declared while their module runs; a class may stand below."""
    module = types.ModuleType("half_made")
    module.__spec__ = types.SimpleNamespace(_initializing=True)  # type: ignore[assignment]
    monkeypatch.setitem(sys.modules, "half_made", module)
    assert exception_name("half_made.Later") == "half_made.Later"
    module.__spec__._initializing = False  # type: ignore[union-attr]
    with pytest.raises(ValueError, match="half_made has no Later"):
        exception_name("half_made.Later")
