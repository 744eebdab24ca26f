"""What holds for a job type: which entry counts, field by field, and what it costs with a hundred thousand types."""

from __future__ import annotations

import pickle
from typing import Any

import pytest

from config import SettingsError, load_settings
from dispatcher.core.types import REMEMBERED, TypeTable
from schemas import ErrorInfo, RetrySpec
from tests.unit.samples import json_variable


def table(entries: dict[str, Any]) -> TypeTable:
    """The table of a configuration."""
    lanes = '["default", "bulk", "slow"]'
    return TypeTable(
        load_settings({"DISPATCHER_TYPES": json_variable(entries), "DISPATCHER_LANES": lanes}).type_entries
    )


@pytest.mark.parametrize(
    ("names", "job_type", "counts"),
    [
        (["email.send", "email.*", "#"], "email.send", "email.send"),
        (["#", "email.*", "email.send"], "email.send", "email.send"),
        (["#", "email.*"], "email.send", "email.*"),
        (["#", "email.#"], "email", "email.#"),
        (["#", "email.#"], "sms.send", "#"),
        (["*.send", "email.*"], "email.send", "email.*"),
        (["email.#", "email.*"], "email.send", "email.*"),
        (["email.#", "email.*"], "email.send.now", "email.#"),
        (["#", "#.send"], "email.send", "#.send"),
        (["*", "*.#"], "email", "*"),
        (["*.*", "*.#"], "email.send", "*.*"),
    ],
)
def test_the_most_specific_entry_counts(names: list[str], job_type: str, counts: str) -> None:
    """In whatever order the configuration has them."""
    for ordered in (names, names[::-1]):
        timeouts = {name: {"timeout": 1 + names.index(name)} for name in ordered}
        assert table(timeouts).of(job_type).timeout == 1 + names.index(counts)


def test_a_type_that_no_entry_matches_has_nothing_of_its_own() -> None:
    """The defaults hold."""
    rules = table({"email.*": {"timeout": 3, "record_payload": False}}).of("sms.send")
    assert (rules.lane, rules.timeout, rules.retry, rules.private, rules.keeps) == (None, None, None, False, False)
    payload = {"a": 1}
    assert rules.payload(payload) is payload


def test_settings_are_taken_one_by_one() -> None:
    """What the most specific entry leaves out comes from the next; each field of retry counts singly."""
    rules = table(
        {
            "#": {"lane": "bulk", "timeout": 9, "retention": 7, "redact": ["password"], "retry": {"factor": 3}},
            "email.*": {"timeout": 8, "retry": {"max_attempts": 2, "factor": 4}},
            "email.send": "slow",
        }
    ).of("email.send")
    assert (rules.lane, rules.timeout, rules.retention, rules.keeps) == ("slow", 8, 7, True)
    assert rules.retry == RetrySpec(max_attempts=2, factor=4)
    assert rules.payload({"password": "x"}) == {"password": "[redacted]"}


def test_a_specific_entry_takes_a_general_one_back() -> None:
    """An empty list redacts nothing, null keeps for ever."""
    rules = table(
        {"#": {"redact": ["a"], "retention": 1, "record_payload": False}, "x": {"redact": [], "retention": None}}
    ).of("x")
    assert rules.keeps
    assert rules.retention is None
    assert not rules.redaction
    assert rules.payload({}) is None


def test_types_that_clients_choose_do_not_fill_the_memory() -> None:
    """A hundred thousand types are answered rightly and leave no more behind than a thousand."""
    types = table({"email.*": {"timeout": 2}, "#": "bulk"})
    for number in range(100_000):
        assert types.of(f"email.t{number}").timeout == 2
    assert len(types._remembered) <= REMEMBERED
    plain = table({"email.send": {"timeout": 2}})
    for number in range(1_000):
        plain.of(f"t{number}")
    assert not plain._remembered


def test_the_table_goes_to_another_process() -> None:
    """Suspects of intake are judged in a child."""
    types = pickle.loads(pickle.dumps(table({"email.*": {"redact": ["a.b"]}})))
    assert types.of("email.send").payload({"a": {"b": 1}}) == {"a": {"b": "[redacted]"}}


@pytest.mark.parametrize(
    "entry", [{"record_payload": False}, {"record_result": False}, {"redact": ["x"]}], ids=lambda e: next(iter(e))
)
def test_an_error_of_a_private_type_is_kept_by_its_name_alone(entry: dict[str, Any]) -> None:
    """Its message and its traceback may repeat what the handler was given."""
    error = ErrorInfo(type="ValueError", message="bad card 4111", traceback="… 4111 …")
    shown = table({"pay": entry}).of("pay").error(error)
    assert shown is not None
    assert shown.type == "ValueError"
    assert "4111" not in shown.model_dump_json()
    assert table({"pay": "bulk"}).of("pay").error(error) is error


@pytest.mark.parametrize(
    ("entries", "said"),
    [
        ({"a": {"lan": "bulk"}}, 'unknown setting "types.a.lan" in the environment; did you mean "types.a.lane"?'),
        ({"a": {"retry": {"max": 3}}}, 'did you mean "types.a.retry.max_delay"?'),
        ({"a": {"record_payloads": False}}, 'did you mean "types.a.record_payload"?'),
        ({"A b": "bulk"}, "setting types.A b"),
        ({"a..b": "bulk"}, "setting types.a..b"),
        ({"a": {"timeout": 0}}, "setting types.a.timeout"),
        ({"a": {"retry": {"max_attempts": 101}}}, "setting types.a.retry.max_attempts"),
        ({"a": {"redact": "password"}}, "setting types.a.redact"),
        ({"a": {"redact": ["a..b"]}}, "setting types.a.redact.0"),
        ({"a": {"retention": 0}}, "setting types.a.retention"),
        ({"a": {"lane": "other"}}, 'lane "other" is used but not declared in lanes'),
        ({"a": 5}, "setting types.a"),
        ({"a": None}, "setting types.a"),
    ],
    ids=str,
)
def test_a_mistake_in_an_entry_is_named(entries: dict[str, Any], said: str) -> None:
    """Which key of which type, and what it should be."""
    with pytest.raises(SettingsError) as caught:
        table(entries)
    assert said in str(caught.value)
