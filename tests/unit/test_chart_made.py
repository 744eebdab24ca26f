"""The chart's values, table and schema: up to date with each other and with the project's settings. Needs no Helm."""

from __future__ import annotations

from typing import Any

import jsonschema
import yaml

from config.settings import DEFAULTS
from dev import chart as made


def test_what_is_made_from_the_comments_is_up_to_date() -> None:
    """`python -m dev.chart` writes both."""
    assert made.README.read_text() == made.with_table(made.README.read_text())
    assert made.SCHEMA.read_text() == made.schema_text()


def test_every_value_has_a_comment_and_a_place_in_the_schema() -> None:
    """And each description of the schema is one of them."""
    said = dict(made.comments())
    for path, _, comment in made.rows(made.defaults(), said):
        assert comment.endswith((".", "}")), f"{path} has no comment in values.yaml"
        assert _found(made.described(), path).get("description") == comment
    _nothing_more(made.described()["properties"], made.defaults(), "")


def _found(schema: dict[str, Any], path: str) -> dict[str, Any]:
    for name in path.split("."):
        schema = schema["properties"][name]
    return schema


#: Where more is allowed than has a default: settings, workers, what a service overrides, and Helm's own.
_OPEN = {"config", "workers", "services", "global"}


def _nothing_more(properties: dict[str, Any], values: dict[str, Any], at: str) -> None:
    for name, schema in properties.items():
        if not at and name in _OPEN:
            continue
        assert name in values, f"{at}{name} has no default in values.yaml"
        if "properties" in schema:
            assert schema["additionalProperties"] is False
            _nothing_more(schema["properties"], values[name], f"{at}{name}.")


def test_the_defaults_fit_the_schema() -> None:
    """With a validator of another make than Helm's."""
    jsonschema.Draft7Validator.check_schema(made.described())
    jsonschema.Draft7Validator(made.described()).validate(made.defaults())


def test_defaults_are_those_of_the_settings() -> None:
    """Where the chart must know a setting's default, it is the one in config/default.yaml."""
    settings, values = yaml.safe_load(DEFAULTS.read_text()), made.defaults()
    for name in ("lanes", "concurrency", "grace"):
        assert values["workerDefaults"][name] == settings["worker"][name]
    assert values["config"] == {
        "amqp": {"prefix": settings["amqp"]["prefix"]},
        "mongo": {"database": settings["mongo"]["database"]},
        "lanes": settings["lanes"],
    }
