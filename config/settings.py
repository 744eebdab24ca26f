"""The settings' shape, and how they are put together: default.yaml, then a file, then the environment."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal
from urllib.parse import urlsplit

import yaml
from pydantic import AfterValidator, BaseModel, Field, SecretStr, ValidationError, model_validator

from config.base import Count, Days, Name, Seconds, Section, SettingsError, unknown_setting
from config.types import Types, check_types
from schemas import sentence

ENV_PREFIX = "DISPATCHER_"
CONFIG_FILE_VARIABLE = "DISPATCHER_CONFIG"
#: Variables under our prefix that are not settings: the file's name, and the secret that ``publish`` uses.
NOT_SETTINGS = {CONFIG_FILE_VARIABLE, "DISPATCHER_API_KEY"}
DEFAULTS = Path(__file__).with_name("default.yaml")


def _broker_url(url: SecretStr) -> SecretStr:
    """Refuse what is no address of RabbitMQ, without repeating it."""
    try:
        parts = urlsplit(url.get_secret_value())
        usable = parts.scheme in ("amqp", "amqps") and bool(parts.hostname) and parts.port != 0
    except ValueError:
        usable = False
    if not usable:
        raise ValueError("write amqp://user:password@host:5672/vhost (amqps:// for TLS), with %-escapes where needed")
    return url


class Amqp(Section):
    """Where RabbitMQ is and what every name there begins with."""

    url: Annotated[SecretStr, AfterValidator(_broker_url)]
    prefix: Annotated[str, Field(pattern=r"^[A-Za-z0-9._-]{0,64}$")]
    publish_timeout: Seconds
    heartbeat: Annotated[int, Field(ge=5, le=600)]
    consumer_timeout: Seconds
    management_url: SecretStr | None


class Mongo(Section):
    """Where MongoDB is."""

    url: SecretStr
    database: Annotated[str, Field(pattern=r"^[A-Za-z0-9_-]{1,60}$")]


class Http(Section):
    """Where each service answers."""

    host: str
    port: Annotated[int, Field(ge=0, le=65_535)] | None


class Log(Section):
    """What is logged and how."""

    level: Literal["debug", "info", "warning", "error"]
    format: Literal["json", "console", "auto"]


class Intake(Section):
    """Limits and intervals of intake."""

    prefetch: Annotated[int, Field(ge=1, le=10_000)]
    max_body_bytes: Annotated[int, Field(ge=1_024, le=8_388_608)]
    reply_prefixes: tuple[Annotated[str, Field(min_length=1)], ...]
    key_refresh: Seconds
    key_grace: Annotated[float, Field(ge=0, le=300)]
    group_members: Annotated[int, Field(ge=10, le=60_000)]
    group_bytes: Annotated[int, Field(ge=1_048_576)]


class Keys(Section):
    """How new keys look, and when to warn of their end."""

    env: Annotated[str, Field(pattern=r"^[a-z0-9]{1,16}$")]
    warn_days: Annotated[float, Field(ge=0, le=366)]


class Worker(Section):
    """Limits and times of a worker."""

    concurrency: Annotated[int, Field(ge=1, le=10_000)]
    lanes: tuple[Name, ...]
    read_ahead: Annotated[int, Field(ge=0, le=10_000)]
    timeout: Annotated[float, Field(ge=0.1, le=86_400)]
    grace: Annotated[float, Field(ge=0)]
    no_handler_delay: Annotated[float, Field(ge=0.125, le=86_400)]
    no_handler_limit: Seconds
    max_result_bytes: Annotated[int, Field(ge=0, le=8_388_608)]
    ask_history_first: bool


class Recorder(Section):
    """How the recorder batches."""

    prefetch: Annotated[int, Field(ge=1, le=10_000)]
    window: Annotated[float, Field(ge=0, le=1)]
    hold: Annotated[float, Field(ge=0, le=10)]
    max_events: Count


class Scheduler(Section):
    """Intervals of what is periodic."""

    rollup_interval: Seconds
    rollup_quiet: Annotated[float, Field(ge=30)]
    depth_interval: Annotated[float, Field(ge=0.1)]


class Retention(Section):
    """For how many days what is over is kept; the queues have limits of their own, which never change."""

    history: Days | None
    rejected: Annotated[float, Field(gt=0, le=14)]
    parked: Annotated[float, Field(gt=0, le=30)]
    interval: Seconds


class Retry(Section):
    """The retry policy where neither message nor handler nor the type's configuration says."""

    max_attempts: Annotated[int, Field(ge=1, le=100)]
    base: Annotated[float, Field(ge=0.125, le=86_400)]
    factor: Annotated[float, Field(ge=1, le=10)]
    max_delay: Annotated[float, Field(ge=0.125, le=86_400)]
    jitter: Annotated[float, Field(ge=0, le=1)]


class Settings(Section):
    """All settings; the meaning of each key stands beside it in default.yaml."""

    amqp: Amqp
    mongo: Mongo
    http: Http
    log: Log
    lanes: Annotated[tuple[Name, ...], Field(min_length=1)]
    types: Types
    intake: Intake
    keys: Keys
    worker: Worker
    recorder: Recorder
    scheduler: Scheduler
    retention: Retention
    retry: Retry

    @model_validator(mode="after")
    def _lanes_are_declared(self) -> Settings:
        if "default" not in self.lanes:
            raise ValueError('lanes must contain "default"')
        for lane in (*self.worker.lanes, *(entry.lane for entry in self.types.values())):
            if lane is not None and lane not in self.lanes:
                raise ValueError(f'lane "{lane}" is used but not declared in lanes')
        return self

    @property
    def type_entries(self) -> dict[str, dict[str, Any]]:
        """What each entry of ``types`` sets."""
        return {name: entry.given() for name, entry in self.types.items()}

    @property
    def worker_lanes(self) -> tuple[str, ...]:
        """The lanes that a worker with these settings serves."""
        return self.worker.lanes or self.lanes


def load_settings(environ: Mapping[str, str] | None = None) -> Settings:
    """Read default.yaml, the file named by ``DISPATCHER_CONFIG`` and the environment, the later over the earlier.

    Raises:
        SettingsError: a file cannot be read, a key is unknown (its nearest is named) or a value is out of bounds.
    """
    env = os.environ if environ is None else environ
    values = _read_yaml(DEFAULTS)
    if file := env.get(CONFIG_FILE_VARIABLE):
        _merge(values, _read_yaml(Path(file)), Settings, file)
    _merge(values, _from_environment(env), Settings, "the environment")
    try:
        return Settings.model_validate(values)
    except ValidationError as error:
        raise SettingsError(_sentence(error)) from None


def _read_yaml(path: Path) -> dict[str, Any]:
    try:
        data = yaml.safe_load(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise SettingsError(
            f"cannot read the configuration file {path}: {error.strerror}; check {CONFIG_FILE_VARIABLE}"
        ) from None
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise SettingsError(f"{path} is not valid YAML{_place(error)}") from None
    if data is None:
        return {}
    if not isinstance(data, dict):
        raise SettingsError(f"{path} must hold a map of settings, as config/default.yaml does")
    return data


def _place(error: Exception) -> str:
    """Where a YAML error is; its own text repeats the line, which may hold a password."""
    mark = getattr(error, "problem_mark", None)
    return f": look at line {mark.line + 1}, column {mark.column + 1}" if mark else ""


def _from_environment(env: Mapping[str, str]) -> dict[str, Any]:
    values: dict[str, Any] = {}
    for name in sorted(env):
        if not name.startswith(ENV_PREFIX) or name in NOT_SETTINGS:
            continue
        path = name.removeprefix(ENV_PREFIX).lower().split("__")
        node = values
        for part in path[:-1]:
            node = node.setdefault(part, {})
            if not isinstance(node, dict):
                raise SettingsError(f"{name} contradicts another variable of the same section")
        node[path[-1]] = _scalar(env[name])
    return values


def _scalar(text: str) -> Any:
    """A variable's value: JSON lists, maps, null, numbers and booleans as such; everything else is text."""
    if text[:1] in "[{" or text in ("null", "true", "false"):
        try:
            return json.loads(text)
        except ValueError:
            return text
    return text


def _merge(into: dict[str, Any], extra: Mapping[str, Any], model: type[BaseModel], source: str, at: str = "") -> None:
    for key, value in extra.items():
        field = model.model_fields.get(str(key))
        if field is None:
            raise unknown_setting(str(key), model.model_fields, source, at)
        section = field.annotation
        if isinstance(section, type) and issubclass(section, BaseModel):
            if not isinstance(value, Mapping):
                raise SettingsError(f'"{at}{key}" in {source} is a section and needs keys below it')
            _merge(into.setdefault(key, {}), value, section, source, f"{at}{key}.")
        else:
            if model is Settings and key == "types":
                check_types(value, source)
            into[key] = value


#: What pydantic says in words of Python.
_PLAINLY = {
    "tuple_type": "write a list",
    "dict_type": "write names with their values",
    "model_type": "write names with their values",
}


def _sentence(error: ValidationError) -> str:
    lines = []
    for item in error.errors(include_input=False, include_url=False, include_context=False):
        where = ".".join(str(part) for part in item["loc"])
        said = _PLAINLY.get(item["type"]) or sentence(item)
        lines.append(f"setting {where}: {said}" if where else said)
    return "; ".join(lines)
