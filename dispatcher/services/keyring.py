"""What operators do to API keys: make, rotate and revoke, each with its entry in the audit.

A rotation makes a key of its own, with its own id, and only then shortens the life of the old one. Killed in
between, the old key stays as it was; killed before the new secret was printed, nobody has it, the old one goes on for
its grace period, and rotating again makes another.
"""

from __future__ import annotations

import secrets
from dataclasses import dataclass

from dispatcher.core import keys
from dispatcher.core.errors import DispatcherError
from dispatcher.core.keys import KeyRecord
from dispatcher.edges import clock
from dispatcher.edges.mongo import AuditStore, KeyStore
from dispatcher.edges.operator import whoami


class KeyringError(DispatcherError):
    """It cannot be done; the sentence says why and what can."""


@dataclass(frozen=True, slots=True)
class Rotated:
    """A rotation: the new key, shown once, its record, and the old one's as it is now."""

    key: str
    new: KeyRecord
    old: KeyRecord


class Keyring:
    """The keys of one installation."""

    def __init__(self, store: KeyStore, audit: AuditStore, env: str) -> None:
        self._store = store
        self._audit = audit
        self._env = env

    async def create(self, record: KeyRecord) -> None:
        """Store a new key's record."""
        async with self._audit.entry("key.created", by=whoami(), app=record.app, key_id=record.id, **_scopes(record)):
            await self._store.create(record)

    async def get(self, key_id: str) -> KeyRecord:
        """One record.

        Raises:
            KeyringError: there is none.
        """
        record = (await self._store.get([key_id])).get(key_id)
        if record is None:
            if whole := keys.parse(key_id):
                raise KeyringError(
                    f"that is a whole key: give its id alone, {whole}; a secret on a command line stays in the "
                    "shell's history"
                )
            shown = keys.redact(key_id.encode(errors="replace")).decode()
            raise KeyringError(f"no key {shown}; see: dispatcher keys list")
        return record

    async def rotate(self, key_id: str, grace: int, lifetime: int | None) -> Rotated:
        """Make a key that replaces one, which is accepted for ``grace`` milliseconds more.

        Args:
            key_id: the key to replace.
            grace: milliseconds.
            lifetime: of the new key, in milliseconds; None: as long as the old one was made for.

        Raises:
            KeyringError: there is no such key, or it was revoked, before or meanwhile.
        """
        old = await self.get(key_id)
        if old.revoked:
            raise KeyringError(f"key {old.id} was revoked; make a new one: dispatcher keys create --app {old.app}")
        key, new_id = keys.generate(self._env, secrets.choice)
        now = clock.now_ms()
        new = keys.successor(old, key, new_id, now, old.lifetime if lifetime is None else lifetime)
        retired = keys.retired(old, new_id, now + grace)
        details = {"replaced_by": new.id, "expires_at": retired.expires_at, "successor_expires_at": new.expires_at}
        async with self._audit.entry("key.rotated", by=whoami(), app=old.app, key_id=old.id, **details):
            await self._store.create(new)
            if not await self._store.retire(retired):
                # a successor would go on in the hands of whoever the key was taken from
                await self._store.revoke(new.id)
                raise KeyringError(f"key {old.id} was revoked just now; nothing replaces it")
        return Rotated(key, new, retired)

    async def revoke(self, key_id: str) -> list[KeyRecord]:
        """Revoke a key for good, and those that it replaced and that are still accepted; returns what was revoked.

        Whoever replaced it goes on. Doing it again changes nothing.

        Raises:
            KeyringError: there is no such key.
        """
        record = await self.get(key_id)
        now = clock.now_ms()
        older = keys.predecessors(record.id, await self._store.all(record.app))
        concerned = [record, *(key for key in older if key.state(now) in keys.LIVE)]
        for key in concerned:
            if not key.revoked:
                async with self._audit.entry("key.revoked", by=whoami(), app=key.app, key_id=key.id):
                    await self._store.revoke(key.id)
        return concerned


def _scopes(record: KeyRecord) -> dict[str, object]:
    """What a key may do, for the audit: what limits it."""
    scopes: dict[str, object] = {
        "types": list(record.types),
        "lanes": list(record.lanes),
        "max_priority": record.max_priority,
        "max_bytes": record.max_bytes,
        "expires_at": record.expires_at,
    }
    return {name: value for name, value in scopes.items() if value}
