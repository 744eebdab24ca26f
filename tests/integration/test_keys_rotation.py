"""Keys that replace one another, and the audit of every change, from the command line to intake."""

from __future__ import annotations

import getpass
import socket
from typing import Any

import pytest

from dispatcher.core import keys
from dispatcher.edges.mongo import AuditStore, Database, DatabaseAway, KeyStore
from dispatcher.services.intake import Intake
from dispatcher.services.keyring import Keyring, KeyringError
from tests.conftest import run_services
from tests.integration.test_keys import create, listed, verdicts
from tests.processes import command, invoke, invoked, succeed
from tests.support import Installation, eventually
from tests.sweep import documents_with

pytestmark = pytest.mark.integration

JOB: list[tuple[str, dict[str, Any]]] = [("mail.send", {})]


async def rotate(installation: Installation, key_id: str, *options: str) -> dict[str, Any]:
    """What ``keys rotate --json`` prints."""
    made: dict[str, Any] = (await invoked(installation, "keys", "rotate", key_id, *options, "--json")).json
    return made


async def entries(installation: Installation, *options: str) -> list[dict[str, Any]]:
    """What ``audit list --json`` prints."""
    found: list[dict[str, Any]] = (await invoked(installation, "audit", "list", *options, "--json")).json
    return found


async def test_a_key_that_is_revoked_while_it_is_rotated_has_no_successor(installed: Installation) -> None:
    """Else whoever it was taken from would have got another one."""
    made = await create(installed, "--app", "race")
    database = Database(installed.settings.mongo.url.get_secret_value(), installed.settings.mongo.database)

    class Slow(KeyStore):
        async def create(self, record: keys.KeyRecord) -> None:
            await super().create(record)
            await self.revoke(made["id"])

    try:
        with pytest.raises(KeyringError, match="revoked just now"):
            await Keyring(Slow(database), AuditStore(database), "test").rotate(made["id"], 60_000, None)
    finally:
        database.close()
    assert {key["state"] for key in (await listed(installed, "race")).values()} == {"revoked"}
    assert (await entries(installed, "--app", "race"))[0]["outcome"] == "failed"


async def test_both_secrets_work_until_the_grace_period_is_over(installed: Installation) -> None:
    """The new key works at once, with the old one's scopes; the old one is retiring, then expired by itself."""
    old = await create(installed, "--app", "turn", "--types", "mail.*")
    async with run_services(Intake(installed.settings)):
        assert await verdicts(installed, old["key"], JOB) == ["accepted"]
        new = await rotate(installed, old["id"], "--grace", "4s")
        assert (new["app"], new["old"]) == ("turn", old["id"])
        assert keys.parse(new["key"]) == new["id"] != old["id"]
        assert await verdicts(installed, new["key"], [*JOB, ("sms.send", {})]) == ["accepted", "forbidden"]
        assert await verdicts(installed, old["key"], JOB) == ["accepted"]
        shown = await listed(installed, "turn")
        assert {key_id: key["state"] for key_id, key in shown.items()} == {old["id"]: "retiring", new["id"]: "active"}
        assert shown[old["id"]]["expires_at"] == new["grace_until"]
        assert (shown[old["id"]]["replaced_by"], shown[new["id"]]["replaces"]) == (new["id"], old["id"])

        async def over() -> bool:
            return await verdicts(installed, old["key"], JOB) == ["expired_key"]

        await eventually(over, "the grace period is over", timeout=20)
        assert await verdicts(installed, new["key"], JOB) == ["accepted"]
    assert documents_with(installed, new["key"][-36:]) == []


async def test_rotating_again_works_where_the_new_secret_was_lost(installed: Installation) -> None:
    """Killed before the print, nobody has the secret: another one is made, and no grace period grows."""
    old = await create(installed, "--app", "lost", "--expires", "90d")
    first = await rotate(installed, old["id"], "--grace", "1h")
    second = await rotate(installed, old["id"], "--grace", "24h")
    assert second["grace_until"] == first["grace_until"]
    shown = await listed(installed, "lost")
    assert shown[old["id"]]["expires_at"] == first["grace_until"]
    assert shown[old["id"]]["replaced_by"] == second["id"]
    assert shown[second["id"]]["state"] == "active"
    # made for as long as the first was, not for what the rotation left of it
    assert shown[second["id"]]["expires_at"] >= shown[first["id"]]["expires_at"] > first["grace_until"]


async def test_a_key_that_has_ended_is_not_said_to_be_accepted(installed: Installation) -> None:
    """It can be rotated; what is said of it is that it ended."""
    old = await create(installed, "--app", "late")
    rotated = [await succeed(installed, "keys", "rotate", old["id"], "--grace", grace) for grace in ("1h", "0s")]
    assert f"{old['id']} is accepted until" in rotated[0].err
    assert f"{old['id']} is accepted no more" in rotated[1].err


async def test_a_rotation_that_dies_between_its_writes_locks_nobody_out(installed: Installation) -> None:
    """The successor is there and nobody has its secret; the old key stays as it was, and the audit has the entry."""
    old = await create(installed, "--app", "torn")
    database = Database(installed.settings.mongo.url.get_secret_value(), installed.settings.mongo.database)

    class Dying(KeyStore):
        async def retire(self, record: keys.KeyRecord) -> bool:
            raise DatabaseAway("killed here")

    keyring = Keyring(Dying(database), AuditStore(database), "test")
    with pytest.raises(DatabaseAway):
        await keyring.rotate(old["id"], 1000, None)
    database.close()
    assert (await listed(installed, "torn"))[old["id"]]["state"] == "active"
    (entry, *_) = await entries(installed, "--app", "torn")
    assert (entry["action"], entry["key_id"], entry["outcome"]) == ("key.rotated", old["id"], None)
    made = await rotate(installed, old["id"])
    assert (await listed(installed, "torn"))[old["id"]]["replaced_by"] == made["id"]


async def test_revoking_covers_what_the_key_replaced(installed: Installation) -> None:
    """The old secret dies with the new one; revoking the old one alone ends its grace and leaves the new one."""
    first = await create(installed, "--app", "chain")
    second = await rotate(installed, first["id"])
    third = await rotate(installed, second["id"])
    await invoked(installed, "keys", "revoke", second["id"])
    states = {key_id: key["state"] for key_id, key in (await listed(installed, "chain")).items()}
    assert states == {first["id"]: "revoked", second["id"]: "revoked", third["id"]: "active"}
    refused = await command(installed, "keys", "rotate", second["id"])
    assert refused.code == 1
    assert "dispatcher keys create --app chain" in refused.err


async def test_every_change_has_its_entry_and_no_secret(installed: Installation) -> None:
    """Who, what and when, the latest first; filters; nothing of a secret or a hash."""
    made = await create(installed, "--app", "seen", "--expires", "90d", "--lanes", "bulk")
    new = await rotate(installed, made["id"])
    await invoked(installed, "keys", "revoke", new["id"])
    found = await entries(installed, "--app", "seen")
    assert [(e["action"], e["key_id"]) for e in found] == [
        ("key.revoked", made["id"]),
        ("key.revoked", new["id"]),
        ("key.rotated", made["id"]),
        ("key.created", made["id"]),
    ]
    assert {(e["by"], e["outcome"]) for e in found} == {(f"{getpass.getuser()}@{socket.gethostname()}", "done")}
    assert found[3]["details"]["lanes"] == ["bulk"]
    assert found[2]["details"]["replaced_by"] == new["id"]
    assert [e["action"] for e in await entries(installed, "--app", "seen", "--action", "key.rotated")] == [
        "key.rotated"
    ]
    assert await entries(installed, "--app", "nobody") == []
    assert len(await entries(installed, "--app", "seen", "--since", "1d", "--limit", "2")) == 2
    assert await entries(installed, "--app", "seen", "--since", "2100-01-01T00:00:00Z") == []
    assert [e["action"] for e in await entries(installed, "--key", new["id"])] == ["key.revoked", "key.rotated"]
    stored = str(list(installed.db.audit.find()))
    for key in (made["key"], new["key"]):
        assert key[-36:] not in stored
        assert keys.digest(key) not in stored
    table = await succeed(installed, "audit", "list", "--app", "seen")
    assert "key.rotated" in table.out


async def test_no_change_without_its_entry(installed: Installation) -> None:
    """Where the entry cannot be written, the change does not begin; what fails afterwards says so."""
    made = await create(installed, "--app", "strict")
    database = Database(installed.settings.mongo.url.get_secret_value(), installed.settings.mongo.database)

    class Full(AuditStore):
        def __init__(self, database: Database) -> None:
            super().__init__(database)
            self._entries = database.db["$not a name"]

    with pytest.raises(Exception, match="name"):
        await Keyring(KeyStore(database), Full(database), "test").revoke(made["id"])
    with pytest.raises(RuntimeError):
        async with AuditStore(database).entry("test.failed", by="me", app="strict", note=f"it was {made['key']}"):
            raise RuntimeError
    database.close()
    assert (await listed(installed, "strict"))[made["id"]]["state"] == "active"
    (entry, *_) = await entries(installed, "--app", "strict")
    assert (entry["action"], entry["outcome"]) == ("test.failed", "failed")
    assert made["key"] not in str(entry)


async def test_show_has_one_key(installed: Installation) -> None:
    """Everything about it but the secret; a key that is not there is exit code 1."""
    made = await create(installed, "--app", "one", "--types", "mail.*")
    shown = (await invoked(installed, "keys", "show", made["id"], "--json")).json
    assert (shown["id"], shown["app"], shown["types"]) == (made["id"], "one", ["mail.*"])
    text = await succeed(installed, "keys", "show", made["id"])
    assert "mail.*" in text.out
    for name, value in (("lanes", "all"), ("expires at", "never"), ("expiring", "no")):
        assert f"{name:14} {value}\n" in text.out
    assert made["key"][-36:] not in text.out + str(shown)


@pytest.mark.parametrize("action", ["show", "rotate", "revoke"])
def test_a_key_that_is_not_there(installed: Installation, action: str) -> None:
    """Exit code 1, the command that lists them; of a whole key given by mistake the id alone is said."""
    key, _ = keys.generate("live", lambda alphabet: alphabet[7])
    for given, says in (("nobody", "dispatcher keys list"), (key, f"give its id alone, {keys.parse(key)};")):
        finished = invoke(installed, "keys", action, given)
        assert finished.code == 1
        assert says in finished.err
        assert key[-36:] not in finished.err
