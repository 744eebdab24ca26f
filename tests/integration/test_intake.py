"""Intake on real servers: every refusal, from plain pika to the queue ``rejected`` and to history."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

import pika
import pytest
import pytest_asyncio

from dispatcher.core import keys
from dispatcher.core.admission import NOT_BUILT, is_type
from dispatcher.core.refusals import Code
from dispatcher.edges import clock
from dispatcher.edges.mongo import Database, KeyStore
from dispatcher.services.intake import Intake
from dispatcher.services.recorder import Recorder
from tests.conftest import run_services
from tests.support import Installation, eventually
from tests.sweep import Taken, take

pytestmark = [pytest.mark.integration, pytest.mark.asyncio(loop_scope="module")]

GOOD_TYPE = "a.good.one"


@dataclass(frozen=True)
class Shop:
    """An installation with intake and recorder running, and keys by name."""

    installation: Installation
    keys: dict[str, str]
    channel: Any

    def publish(self, job_type: str, body: bytes | dict[str, Any], key: Any) -> None:
        """Publish on the one channel of all these tests, confirmed."""
        data = body if isinstance(body, bytes) else json.dumps(body).encode()
        headers = {} if key is None else {"x-api-key": key}
        sent = pika.BasicProperties("application/json", delivery_mode=2, headers=headers)
        self.channel.basic_publish(self.installation.names.jobs, job_type, data, sent)

    def take(self, queue: str) -> list[Taken]:
        """Take everything out of a queue."""
        return take(self.installation, queue, self.channel)

    async def refusal(self) -> Taken:
        """The one message in ``rejected``, taken out."""
        found: list[Taken] = await eventually(lambda: self.take(self.installation.names.rejected), "a refusal")
        assert len(found) == 1
        return found[0]

    async def prove_alive(self, job_id: str | None = None) -> str:
        """Publish a valid job and see it in its work queue; returns its id."""
        job_id = job_id or clock.new_id()
        self.publish(GOOD_TYPE, {"id": job_id}, self.keys["plain"])
        queue = self.installation.names.work_queue("default", "normal")
        found: list[Taken] = await eventually(lambda: self.take(queue), f"job {job_id} is accepted")
        assert [json.loads(message.body)["id"] for message in found] == [job_id]
        return job_id


@pytest_asyncio.fixture(loop_scope="module", scope="module")
async def shop(installed: Installation) -> AsyncIterator[Shop]:
    """Intake and recorder running; keys of every kind."""
    made = {
        "plain": await installed.create_key(),
        "mail": await installed.create_key(types=("mail.*", "exact")),
        "bulk": await installed.create_key(lanes=("bulk",)),
        "low": await installed.create_key(max_priority="low"),
        "small": await installed.create_key(max_bytes=100),
        "expired": await installed.create_key(expires_at=clock.now_ms() - 1),
        "revoked": await installed.create_key(),
        "never stored": keys.generate("test", lambda alphabet: alphabet[7])[0],
    }
    made["other secret"] = _with_other_secret(made["plain"])
    made["bad checksum"] = made["plain"][:-1] + ("0" if made["plain"][-1] != "0" else "1")
    database = Database(installed.settings.mongo.url.get_secret_value(), installed.settings.mongo.database)
    await KeyStore(database).revoke(keys.parse(made["revoked"]) or "")
    database.close()
    async with run_services(Intake(installed.settings), Recorder(installed.settings)):
        with installed.channel() as channel:
            channel.confirm_delivery()
            yield Shop(installed, made, channel)


def _with_other_secret(key: str) -> str:
    start = key[: key.rindex("_") + 1] + "z" * keys.SECRET_LENGTH
    return start + keys.checksum(start)


@dataclass(frozen=True)
class Case:
    """A message that must be refused."""

    code: str
    name: str
    body: bytes | dict[str, Any] = b"{}"
    key: str | None = "plain"
    type: str = GOOD_TYPE
    says: str = ""

    def __str__(self) -> str:
        return f"{self.code}-{self.name}"


def _nested(depth: int) -> bytes:
    return b'{"payload":' + b'{"a":' * (depth - 1) + b"{}" + b"}" * depth


KEY_CASES = [
    Case("missing_key", "no-header", key=None),
    Case("malformed_key", "checksum", key="bad checksum"),
    Case("unknown_key", "never-stored", key="never stored"),
    Case("unknown_key", "other-secret", key="other secret"),
    Case("revoked_key", "revoked", key="revoked"),
    Case("expired_key", "expired", key="expired"),
    Case("forbidden", "type", key="mail", type="sms.send"),
    Case("forbidden", "type-too-deep", key="mail", type="mail.send.now"),
    Case("forbidden", "lane", key="bulk"),
    Case("forbidden", "priority", {"priority": "normal"}, key="low"),
    Case("too_large", "for-the-key", {"payload": {"a": "x" * 100}}, key="small", says="at most 100"),
    # the first code counts
    Case("unknown_key", "before-everything", b"\xff", key="never stored", type="Bad"),
    Case("bad_type", "before-forbidden", b"\xff", key="mail", type="Bad"),
    Case("forbidden", "type-before-the-body", b"\xff", key="mail"),
    Case("unknown_lane", "before-forbidden-lane", {"lane": "nowhere"}, key="bulk"),
]
TYPE_CASES = [
    Case("bad_type", name, type=job_type)
    for name, job_type in {
        "capitals": "Mail.Send", "empty": "", "empty-word": "a..b", "dot-at-the-end": "a.", "long": "a" * 101,
        "space": "a b", "umlaut": "grün", "newline": "a\n", "wildcard": "a.#", "bytes-255": "x" * 255,
    }.items()
]  # fmt: skip
BODY_CASES = [
    Case("too_large", "one-byte", b'{"payload":{"a":"' + b"x" * (262_145 - 20) + b'"}}', says="262145 bytes"),
    Case("invalid_utf8", "latin-1", '{"payload":{"a":"é"}}'.encode("latin-1")),
    Case("invalid_utf8", "overlong-nul", b'{"payload":{"a":"\xc0\x80"}}'),
    Case("invalid_utf8", "surrogate", b'{"payload":{"a":"\xed\xa0\x80"}}'),
    Case("too_deep", "100000-brackets", b"[" * 100_000),
    Case("too_deep", "100000-objects", b'{"a":' * 40_000),
    Case("too_deep", "payload-65", _nested(65)),
    Case("too_deep", "before-not-finite", b'{"payload":NaN,"x":' + b"[" * 70 + b"]" * 70 + b"}"),
    Case("not_finite", "NaN", b'{"payload":{"a":NaN}}'),
    Case("not_finite", "Infinity", b'{"payload":{"a":[-Infinity]}}'),
    Case("not_finite", "overflow", b'{"payload":{"a":1e400}}'),
    Case("not_finite", "before-invalid-json", b'{"payload":{"a":NaN}'),
    Case("not_finite", "before-not-an-object", b"[NaN]"),
    Case("invalid_json", "empty", b""),
    Case("invalid_json", "cut", b'{"payload":{}'),
    Case("invalid_json", "two", b"{}{}"),
    Case("invalid_json", "bom", b"\xef\xbb\xbf{}"),
    Case("invalid_json", "trailing-comma", b'{"payload":{},}'),
    Case("invalid_json", "control-character", b'{"payload":{"a":"\x00"}}'),
    *(Case("not_an_object", body.decode(), body) for body in (b"[]", b"1", b"null", b'"x"', b"true")),
    Case("unknown_field", "misspelt", {"paylod": {}}, says='"payload"'),
    Case("unknown_field", "in-retry", {"retry": {"max_attemps": 3}}, says='"max_attempts"'),
    Case("unknown_field", "before-unsupported", {"callback": 1, "no": 1}),
    *(Case("unsupported", name, {name: 1}, says=f'"{name}"') for name in sorted(NOT_BUILT)),
    Case("unsupported", "before-type-mismatch", {"callback": 1, "type": "other"}),
    Case("type_mismatch", "other", {"type": "other"}),
    Case("type_mismatch", "before-invalid-field", {"type": "other", "priority": "urgent"}),
    *(
        Case("invalid_field", f"{field}-{number}", {field: value}, says=f"{field}")
        for field, values in {
            "id": ["", "a b", "x" * 129, 7, None, "a\n", "ä"],
            "priority": ["urgent", "", 1, None],
            "delay": [-1, 31_536_001, "5", True, None],
            "run_at": ["", "tomorrow", "2026-11-26T18:00:00", "2999-01-01T00:00:00Z", 5, None],
            "expires": [0, -1, "5", None],
            "deadline": [0, -1, "5", None],
            "timeout": [0, 0.09, 86_401, "5", True, None],
            "payload": [[], "x", 1, None],
            "tags": ["x", [""], ["x" * 65], ["x"] * 11, [1]],
            "lane": ["", "Bulk", "x" * 33, 1],
            "type": [1, None],
            "retry": [
                {"max_attempts": 0}, {"max_attempts": 101}, {"max_attempts": 1.5}, {"base": 0.1}, {"factor": 11},
                {"jitter": 2}, {"max_delay": 90_000}, {"on": "OSError"}, {"on": ["not a name"]}, [], {"base": "1"},
            ],
        }.items()
        for number, value in enumerate(values)
    ),
    Case("invalid_field", "int65", b'{"payload":{"a":9223372036854775808}}', says="64 bit"),
    Case("invalid_field", "name-twice", b'{"payload":{"a":1,"a":2}}', says="twice"),
    Case("invalid_field", "field-twice", b'{"id":"a","id":"b"}', says="twice"),
    Case("invalid_field", "NUL-in-a-name", b'{"payload":{"a\\u0000":1}}', says="NUL"),
    Case("invalid_field", "half-a-surrogate-pair", b'{"payload":{"a":"\\ud800"}}', says="surrogate"),
    Case("unknown_lane", "unknown", {"lane": "nowhere"}, says="bulk, default"),
]  # fmt: skip


@pytest.mark.parametrize("case", [*KEY_CASES, *TYPE_CASES, *BODY_CASES], ids=str)
async def test_every_refusal(shop: Shop, case: Case) -> None:
    """The code and a sentence stand in the header, the body is unchanged, and the next job is accepted."""
    key = None if case.key is None else shop.keys[case.key]
    shop.publish(case.type, case.body, key)
    refusal = await shop.refusal()
    code, _, sentence = refusal.headers["x-rejected-reason"].partition(": ")
    assert code == case.code, sentence
    assert case.says in sentence
    assert sentence
    body = case.body if isinstance(case.body, bytes) else json.dumps(case.body).encode()
    assert refusal.body == (body[:65_536] if len(body) > 262_144 else body)
    assert refusal.headers.keys() <= {"x-rejected-reason", "x-original-size", "x-at", "x-app", "x-type"}
    assert refusal.headers.get("x-type") == (case.type if is_type(case.type) else None)
    assert key is None or not refusal.holds(key)
    await shop.prove_alive()


@pytest.mark.parametrize("case", [c for c in BODY_CASES if c.code in ("invalid_field", "too_large")], ids=str)
async def test_a_refusal_is_a_document_of_its_own(shop: Shop, case: Case) -> None:
    """With a valid key it stands in ``jobs`` as rejected, with the code and without the content."""
    app = f"doc-{clock.new_id()[-12:]}"
    key = await shop.installation.create_key(app=app)
    shop.publish(case.type, case.body, key)
    documents = await eventually(lambda: list(shop.installation.db.jobs.find({"app": app})), "it is in history")
    await shop.refusal()
    assert len(documents) == 1
    document = documents[0]
    assert document["state"] == "rejected"
    assert document["error"]["type"] == case.code
    assert document["_id"] == f"{app}:{document['id']}"
    assert document["type"] == case.type
    assert document["key_id"] == keys.parse(key)
    assert document["accepted_at"] == document["finished_at"]
    assert document["attempts"] == []
    assert not document.get("payload")


@pytest.mark.parametrize("case", [c for c in KEY_CASES if c.code.endswith("_key")], ids=str)
async def test_without_a_valid_key_nothing_is_recorded(shop: Shop, case: Case) -> None:
    """A stranger's message makes no document."""
    before = shop.installation.db.jobs.count_documents({})
    shop.publish(case.type, case.body, None if case.key is None else shop.keys[case.key])
    await shop.refusal()
    after = await shop.prove_alive()
    await eventually(lambda: shop.installation.job(after), "the next job is recorded")
    assert shop.installation.db.jobs.count_documents({}) == before + 1


async def test_a_refusal_claims_no_id(shop: Shop) -> None:
    """A refused message with an id, and then a valid one with the same id: both stand."""
    installation = shop.installation
    app = "claims"
    key = await installation.create_key(app=app)
    installation.publish(GOOD_TYPE, {"id": "same", "priority": "urgent"}, key)
    await shop.refusal()
    installation.publish(GOOD_TYPE, {"id": "same"}, key)
    job = await eventually(lambda: installation.job("same", app), "the job is recorded")
    await eventually(lambda: take(installation, installation.names.work_queue("default", "normal")), "it is queued")
    assert job["state"] == "queued"

    def states() -> list[str]:
        return sorted(found["state"] for found in installation.db.jobs.find({"app": app}))

    await eventually(lambda: len(states()) == 2, "both are recorded")
    assert states() == ["queued", "rejected"]


async def test_a_huge_body_is_cut(shop: Shop) -> None:
    """10 MiB are refused; 64 KiB of them are kept, with the size that it had."""
    size = 10 * 1024 * 1024
    shop.publish(GOOD_TYPE, b'{"payload":"' + b"x" * (size - 14) + b'"}', shop.keys["plain"])
    refusal = await shop.refusal()
    assert refusal.headers["x-rejected-reason"].startswith("too_large: ")
    assert refusal.headers["x-original-size"] == size
    assert len(refusal.body) == 65_536
    await shop.prove_alive()


@pytest.mark.parametrize(
    ("name", "body"),
    [
        ("largest", b'{"payload":{"a":"' + b"x" * (262_144 - 20) + b'"}}'),
        ("deepest", _nested(64)),
        ("longest-id", {"id": "x" * 128}),
        ("int64", b'{"payload":{"a":[9223372036854775807,-9223372036854775808]}}'),
        ("type-in-the-body", {"type": GOOD_TYPE}),
        ("NUL-in-a-value", b'{"payload":{"a":"\\u0000"}}'),
        ("no-name-at-all", {"payload": {"": {"$where": 1, "a.b": 2}}}),
        ("most-tags", {"tags": ["ä" * 64] * 10}),
        ("every-retry-field", {"retry": {"max_attempts": 100, "base": 86_400, "factor": 1, "max_delay": 86_400,
                                         "jitter": 1, "on": ["a.B"], "never": ["C"]}}),
    ],
)  # fmt: skip
async def test_what_is_just_within_the_bounds_is_accepted(shop: Shop, name: str, body: Any) -> None:
    """The last value allowed is allowed, and reaches history."""
    app = f"ok-{name.lower()}"
    key = await shop.installation.create_key(app=app)
    shop.publish(GOOD_TYPE, body, key)
    document = await eventually(lambda: shop.installation.db.jobs.find_one({"app": app}), "it is in history")
    queue = shop.installation.names.work_queue("default", "normal")
    await eventually(lambda: shop.take(queue), "it is queued")
    assert document["state"] == "queued"


@pytest.mark.parametrize(
    "value",
    [
        7,
        -(2**63),
        True,
        datetime(2030, 1, 1, tzinfo=UTC),
        [],
        ["x"],
        {"x-api-key": "y"},
        b"",
        b"\xff\x00",
        "",
        "x" * 60_000,
        "jd_live__",
        "jd_",
        "Bearer x",
    ],
    ids=lambda value: repr(value)[:20],
)
async def test_a_header_of_a_wrong_type_is_malformed(shop: Shop, value: Any) -> None:
    """Whatever AMQP can hold, the answer is the same."""
    shop.publish(GOOD_TYPE, {}, value)
    assert (await shop.refusal()).headers["x-rejected-reason"].startswith("malformed_key: ")
    await shop.prove_alive()


async def test_a_key_as_bytes_is_taken(shop: Shop) -> None:
    """Clients whose library sends byte arrays are served."""
    shop.publish(GOOD_TYPE, {"id": "as-bytes"}, shop.keys["plain"].encode())
    queue = shop.installation.names.work_queue("default", "normal")
    assert len(await eventually(lambda: shop.take(queue), "it is queued")) == 1


async def test_transient_messages_are_served_and_made_persistent(shop: Shop) -> None:
    """A client that forgot delivery mode 2 gets the same service."""
    with shop.installation.channel() as channel:
        channel.confirm_delivery()
        for body in (b"{}", b"["):
            channel.basic_publish(
                shop.installation.names.jobs, GOOD_TYPE, body,
                pika.BasicProperties(delivery_mode=1, headers={"x-api-key": shop.keys["plain"]}),
            )  # fmt: skip
    assert (await shop.refusal()).properties.delivery_mode == 2
    queue = shop.installation.names.work_queue("default", "normal")
    found = await eventually(lambda: shop.take(queue), "it is queued")
    assert [message.properties.delivery_mode for message in found] == [2]


async def test_the_table_covers_the_contract() -> None:
    """Every code that a publish can meet in this version has a case here."""
    elsewhere = {"conflicting_fields", "rate_limited", "crashed_intake"}
    assert {c.code for c in (*KEY_CASES, *TYPE_CASES, *BODY_CASES)} == {str(code) for code in Code} - elsewhere
