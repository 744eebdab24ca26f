"""Values that several unit tests begin with: a key, its record, the rules of admission, a work message."""

from __future__ import annotations

import json
from random import Random
from typing import Any

from dispatcher.core import keys
from dispatcher.core.admission import Admitted, Rules, Submission, admit
from dispatcher.core.refusals import Refusal
from dispatcher.core.types import TypeTable
from schemas import WorkMessage

NOW = 1_800_000_000_000
TYPES = TypeTable({"report.build": {"lane": "bulk"}})
RULES = Rules(frozenset({"default", "bulk"}), TYPES, 262_144)
JOB_TYPE = "email.send"


def json_variable(value: Any) -> str:
    """A list or a map as a variable of the environment has it."""
    return json.dumps(value)


def make_key(seed: int = 0, env: str = "live") -> tuple[str, str]:
    """A whole key and its id, the same for every seed."""
    return keys.generate(env, Random(seed).choice)


def make_record(key: str, key_id: str, **fields: Any) -> keys.KeyRecord:
    """The record of a key of the app ``shop``."""
    return keys.KeyRecord(id=key_id, app="shop", hash=keys.digest(key), created_at=NOW - 1_000, **fields)


KEY, KEY_ID = make_key()
RECORD = make_record(KEY, KEY_ID)


def submit(
    body: bytes | dict[str, Any],
    routing_key: str = JOB_TYPE,
    record: keys.KeyRecord = RECORD,
    rules: Rules = RULES,
    **headers: object,
) -> Admitted:
    """What intake decides about a body, sent with a valid key."""
    data = body if isinstance(body, bytes) else json.dumps(body).encode()
    return admit(Submission(routing_key, data, KEY, **headers), record, rules, NOW, 0x1234_5678_9ABC_DEF0_1234)


def refused(
    body: bytes | dict[str, Any], routing_key: str = JOB_TYPE, record: keys.KeyRecord = RECORD, rules: Rules = RULES
) -> Refusal | None:
    """The refusal of a body, or None where it is admitted."""
    try:
        submit(body, routing_key, record, rules)
    except Refusal as refusal:
        return refusal
    return None


def code_of(
    body: bytes | dict[str, Any], routing_key: str = JOB_TYPE, record: keys.KeyRecord = RECORD, rules: Rules = RULES
) -> str:
    """The code of a refusal, or ``admitted``."""
    refusal = refused(body, routing_key, record, rules)
    return str(refusal.code) if refusal else "admitted"


def make_work(**fields: Any) -> WorkMessage:
    """A work message, the first step of a job."""
    return WorkMessage(
        **{
            "app": "shop",
            "id": "job-1",
            "type": JOB_TYPE,
            "lane": "default",
            "priority": "normal",
            "accepted_at": NOW,
            "payload": {"to": "a@example.org"},
            **fields,
        }
    )
