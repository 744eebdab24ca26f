"""Grafana's published model of a dashboard (grafana-foundation-sdk): is a document what Grafana knows?"""

from __future__ import annotations

import enum
import json
import sys
import types
import typing
from collections.abc import Iterator
from typing import Any

from grafana_foundation_sdk.cog import plugins
from grafana_foundation_sdk.cog.encoder import JSONEncoder
from grafana_foundation_sdk.models.dashboard import Dashboard

plugins.register_default_plugins()

#: What Grafana itself writes, and its published types leave out.
UNPUBLISHED = {"definition", "titleFormat", "step"}


def complaints(document: dict[str, Any]) -> list[str]:
    """Fields that the model does not know, and values that it does not allow."""
    parsed = Dashboard.from_json(document)
    written = json.loads(JSONEncoder().encode(parsed))
    return [*_lost(document, written, ""), *_misfits(parsed, Dashboard, "")]


def _lost(given: Any, kept: Any, at: str) -> Iterator[str]:
    """What was in the document and is not after reading and writing it."""
    if isinstance(given, dict) and isinstance(kept, dict):
        for name, value in given.items():
            if name in kept:
                yield from _lost(value, kept[name], f"{at}.{name}")
            elif name not in UNPUBLISHED:
                yield f"{at}.{name} is not known"
    elif isinstance(given, list) and isinstance(kept, list) and len(given) == len(kept):
        for n, (one, other) in enumerate(zip(given, kept, strict=True)):
            yield from _lost(one, other, f"{at}[{n}]")
    elif given != kept:
        yield f"{at} was {given!r} and became {kept!r}"


def _misfits(value: Any, hint: Any, at: str) -> Iterator[str]:
    """Values that are not of the type that the model gives them."""
    model = _model(value, hint)
    if isinstance(value, dict) and model is not None:  # the reader leaves some parts as they are
        parsed = model.from_json(value)
        yield from _lost(value, json.loads(JSONEncoder().encode(parsed)), at)
        yield from _misfits(parsed, model, at)
    elif not _fits(value, hint):
        yield f"{at} is {value!r}, not {hint}"
    elif isinstance(value, list):
        (each,) = [typing.get_args(one)[0] for one in _options(hint) if typing.get_origin(one) is list] or [Any]
        for n, item in enumerate(value):
            yield from _misfits(item, each, f"{at}[{n}]")
    elif hasattr(value, "to_json"):
        hints = typing.get_type_hints(type(value), vars(sys.modules[type(value).__module__]))
        for name, field in vars(value).items():
            yield from _misfits(field, hints.get(name, Any), f"{at}.{name}")


def _options(hint: Any) -> tuple[Any, ...]:
    """What a value may be one of."""
    return typing.get_args(hint) if typing.get_origin(hint) in (typing.Union, types.UnionType) else (hint,)


def _model(value: Any, hint: Any) -> Any:
    """The one model that a part may be, where the type says so."""
    models = [each for each in _options(hint) if hasattr(each, "from_json")]
    return models[0] if len(models) == 1 else None


def _fits(value: Any, hint: Any) -> bool:
    arguments = typing.get_args(hint)
    match typing.get_origin(hint):
        case typing.Union | types.UnionType:
            return any(_fits(value, each) for each in arguments)
        case typing.Literal:
            return value in arguments
        case origin if origin in (list, dict):
            return isinstance(value, origin)
    if isinstance(hint, type) and issubclass(hint, enum.Enum):
        return value in [each.value for each in hint]
    if hint is float:
        return isinstance(value, int | float) and not isinstance(value, bool)
    return not isinstance(hint, type) or hint is object or isinstance(value, hint)
