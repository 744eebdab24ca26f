"""Settings: default.yaml is complete, files and environment override it, mistakes are named, secrets are not."""

from __future__ import annotations

import itertools
import re
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st
from pydantic import BaseModel

from config import Settings, SettingsError, load_settings
from config.settings import CONFIG_FILE_VARIABLE, DEFAULTS
from config.types import TypeSettings

SECRET = "hunter2secret"
URL = f"amqp://user:{SECRET}@broker:5672/"


def leaves(model: type[BaseModel], at: tuple[str, ...] = ()) -> set[tuple[str, ...]]:
    """Every key of the model, by its path."""
    found: set[tuple[str, ...]] = set()
    for name, field in model.model_fields.items():
        section = field.annotation
        if isinstance(section, type) and issubclass(section, BaseModel):
            found |= leaves(section, (*at, name))
        else:
            found.add((*at, name))
    return found


def written(values: dict[str, Any], known: set[tuple[str, ...]], at: tuple[str, ...] = ()) -> set[tuple[str, ...]]:
    """Every key of the file, by its path."""
    found: set[tuple[str, ...]] = set()
    for name, value in values.items():
        path = (*at, name)
        if path in known or not isinstance(value, dict):
            found.add(path)
        else:
            found |= written(value, known, path)
    return found


def test_default_yaml_has_exactly_the_models_keys() -> None:
    """None is missing, none is left over, and the model itself has no defaults that could hide one."""
    known = leaves(Settings)
    assert written(yaml.safe_load(DEFAULTS.read_text()), known) == known
    load_settings({})


def test_every_key_of_default_yaml_has_a_comment_above_it() -> None:
    """Each setting is explained where it stands; sections are only names."""
    lines = DEFAULTS.read_text().splitlines()
    sections = {name for name, field in Settings.model_fields.items() if isinstance(field.annotation, type)}
    sections -= {"types"}
    for above, line in itertools.pairwise(lines):
        key = re.match(r"( *)([a-z_]+):", line)
        if key and not (key[1] == "" and key[2] in sections):
            assert above.strip().startswith("#"), f"{line.strip()} has no comment"
            assert above.startswith(f"{key[1]}# "), f"the comment above {key[2]} is indented otherwise"


def test_the_contracts_variables_are_settings() -> None:
    """The six that other programs rely on."""
    settings = load_settings(
        {
            "DISPATCHER_AMQP__URL": URL,
            "DISPATCHER_AMQP__PREFIX": "x.",
            "DISPATCHER_MONGO__URL": "mongodb://m:1",
            "DISPATCHER_MONGO__DATABASE": "jobs2",
            "DISPATCHER_WORKER__CONCURRENCY": "7",
            "DISPATCHER_HTTP__PORT": "8080",
        }
    )
    assert settings.amqp.url.get_secret_value() == URL
    assert settings.mongo.url.get_secret_value() == "mongodb://m:1"
    assert (settings.amqp.prefix, settings.mongo.database) == ("x.", "jobs2")
    assert (settings.worker.concurrency, settings.http.port) == (7, 8080)


def configuration(tmp_path: Path, text: str) -> dict[str, str]:
    """An environment that names a file of this content."""
    file = tmp_path / "mine.yaml"
    file.write_text(text)
    return {CONFIG_FILE_VARIABLE: str(file)}


def test_a_file_overrides_the_defaults_and_the_environment_both(tmp_path: Path) -> None:
    """Key by key: what the later says nothing about stays."""
    env = configuration(tmp_path, "worker:\n  concurrency: 5\n  grace: 9\nlanes: [default, bulk]\n")
    settings = load_settings(env | {"DISPATCHER_WORKER__CONCURRENCY": "6"})
    assert (settings.worker.concurrency, settings.worker.grace, settings.worker.read_ahead) == (6, 9, 100)
    assert settings.lanes == settings.worker_lanes == ("default", "bulk")
    assert load_settings({}).worker.concurrency == 100


def test_values_in_the_environment() -> None:
    """JSON for lists, maps, null and booleans; everything else is text, which numbers are read from."""
    settings = load_settings(
        {
            "DISPATCHER_LANES": '["default", "bulk"]',
            "DISPATCHER_WORKER__LANES": '["bulk"]',
            "DISPATCHER_TYPES": '{"report.build": "bulk"}',
            "DISPATCHER_HTTP__PORT": "null",
            "DISPATCHER_RECORDER__WINDOW": "0.5",
            "DISPATCHER_AMQP__PREFIX": "007",
            "DISPATCHER_API_KEY": "not a setting",
            "PATH": "/bin",
        }
    )
    assert settings.worker_lanes == ("bulk",)
    assert settings.types == {"report.build": TypeSettings(lane="bulk")}
    assert (settings.http.port, settings.recorder.window, settings.amqp.prefix) == (None, 0.5, "007")


@pytest.mark.parametrize(
    ("env", "said"),
    [
        ({"DISPATCHER_AMQP__URI": "x"}, 'unknown setting "amqp.uri" in the environment; did you mean "amqp.url"?'),
        ({"DISPATCHER_WORKERS__LANES": "[]"}, 'unknown setting "workers" in the environment; did you mean "worker"?'),
        ({"DISPATCHER_LANE": "x"}, 'did you mean "lanes"?'),
        ({"DISPATCHER_WORKER__CONCURENCY": "5"}, 'did you mean "worker.concurrency"?'),
        ({"DISPATCHER_WORKER__LANES__X": "5"}, "setting worker.lanes"),
        ({"DISPATCHER_WORKER": "5"}, '"worker" in the environment is a section'),
        ({"DISPATCHER_WORKER": "5", "DISPATCHER_WORKER__LANES": "[]"}, "contradicts"),
        ({"DISPATCHER_WORKER__CONCURRENCY": "0"}, "setting worker.concurrency: "),
        ({"DISPATCHER_WORKER__CONCURRENCY": "many"}, "setting worker.concurrency: "),
        ({"DISPATCHER_WORKER__TIMEOUT": "nan"}, "setting worker.timeout: "),
        ({"DISPATCHER_HTTP__PORT": "65536"}, "setting http.port: "),
        ({"DISPATCHER_AMQP__PREFIX": "a b"}, "setting amqp.prefix: "),
        ({"DISPATCHER_MONGO__DATABASE": ""}, "setting mongo.database: "),
        ({"DISPATCHER_INTAKE__KEY_GRACE": "301"}, "setting intake.key_grace: "),
        ({"DISPATCHER_WORKER__LANES": "bulk"}, "setting worker.lanes: write a list"),
        ({"DISPATCHER_LANES": '["bulk"]'}, 'lanes must contain "default"'),
        ({"DISPATCHER_LANES": "[]"}, "setting lanes: "),
        ({"DISPATCHER_LANES": '["default", "Bulk"]'}, "setting lanes.1: "),
        ({"DISPATCHER_TYPES": '{"a": "slow"}'}, 'lane "slow" is used but not declared'),
        ({"DISPATCHER_WORKER__LANES": '["slow"]'}, 'lane "slow" is used but not declared'),
        ({CONFIG_FILE_VARIABLE: "/nowhere/x.yaml"}, "cannot read the configuration file /nowhere/x.yaml"),
    ],
    ids=str,
)
def test_a_mistake_is_named(env: dict[str, str], said: str) -> None:
    """Which key, and what it should be."""
    with pytest.raises(SettingsError) as caught:
        load_settings(env)
    assert said in str(caught.value)
    assert "Value error" not in str(caught.value)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (
            "worker:\n  concurency: 5\n",
            'unknown setting "worker.concurency" in {file}; did you mean "worker.concurrency"?',
        ),
        ("worker:\n", '"worker" in {file} is a section'),
        ("5: 6\n", 'unknown setting "5" in {file}'),
        ("- a\n", "{file} must hold a map of settings"),
        ("a: [\n", "{file} is not valid YAML"),
        ("a: !!python/object/apply:os.system ['true']\n", "{file} is not valid YAML"),
    ],
)
def test_a_mistake_in_a_file_names_the_file(tmp_path: Path, text: str, said: str) -> None:
    """So that whoever has several knows which."""
    env = configuration(tmp_path, text)
    with pytest.raises(SettingsError) as caught:
        load_settings(env)
    assert said.format(file=env[CONFIG_FILE_VARIABLE]) in str(caught.value)


def test_broken_yaml_names_its_line(tmp_path: Path) -> None:
    """The place is said, though not what stands there."""
    with pytest.raises(SettingsError, match=r"line 3, column \d+"):
        load_settings(configuration(tmp_path, "amqp:\n  prefix: x\n  url: a: b\n"))


def test_an_empty_file_is_no_mistake(tmp_path: Path) -> None:
    """It says nothing, so the defaults stand."""
    for text in ("", "# nothing yet\n"):
        assert load_settings(configuration(tmp_path, text)) == load_settings({})


def test_a_file_that_is_no_text_is_a_settings_error(tmp_path: Path) -> None:
    """Not a traceback."""
    file = tmp_path / "bad.yaml"
    file.write_bytes(b"\xff\xfe\x00")
    with pytest.raises(SettingsError, match="not valid YAML"):
        load_settings({CONFIG_FILE_VARIABLE: str(file)})


def test_a_password_in_a_url_is_in_no_text_of_the_settings() -> None:
    """repr and str, of the settings and of the section."""
    settings = load_settings({"DISPATCHER_AMQP__URL": URL, "DISPATCHER_MONGO__URL": URL})
    for text in (repr(settings), str(settings), repr(settings.amqp), str(settings.model_dump()), f"{settings.mongo}"):
        assert SECRET not in text


BAD_FILES = [
    f"amqp:\n  url: amqp://user: {SECRET}@broker\n",
    f"amqp:\n  url: [{SECRET}\n",
    f"amqp:\n  url: {{a: {SECRET}}}\n",
    f"amqp:\n  url: '{SECRET}\n",
    f"amqp:\n\turl: {SECRET}\n",
    f"amqp:\n  url: *{SECRET}\n",
    f"amqp:\n  url: &{SECRET}! x\n",
    f"amqp:\n  url: !{SECRET} x\n",
    f"amqp: {URL}\n",
    f"amqp:\n  url: [{SECRET}]\n",
    f"mongo:\n  url: {URL}\n  database: '{SECRET} '\n",
    f"{URL}\n",
    f"lanes: {SECRET.upper()}\n",
    f"lanes: [default, {URL}]\n",
    f"worker:\n  concurrency: {URL}\n",
]


@pytest.mark.parametrize("text", BAD_FILES)
def test_a_password_in_a_broken_file_is_not_repeated(tmp_path: Path, text: str) -> None:
    """Errors end in logs: they name file, line and key, never the value."""
    with pytest.raises(SettingsError) as caught:
        load_settings(configuration(tmp_path, text))
    assert SECRET not in str(caught.value).lower()
    assert caught.value.__cause__ is None


@given(st.sampled_from(sorted(leaves(Settings) - {("amqp", "url"), ("mongo", "url"), ("http", "host")})))
def test_a_password_under_any_key_is_not_repeated(path: tuple[str, ...]) -> None:
    """A URL put into the wrong variable is refused without being shown."""
    for value in (URL, f'["{URL}"]', f'{{"{SECRET}": "{URL}"}}'):
        said = ""
        try:
            load_settings({f"DISPATCHER_{'__'.join(path)}".upper(): value})
        except SettingsError as error:
            said = str(error)
        assert URL not in said


def test_settings_cannot_be_changed() -> None:
    """They are read once and passed down as values."""
    settings = load_settings({})
    with pytest.raises(Exception, match="frozen"):
        settings.worker.concurrency = 5
