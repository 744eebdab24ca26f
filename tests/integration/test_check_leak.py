"""`keys check-leak`: what it finds, what it says, what it never says, and its exit code."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path

import pytest

from dispatcher.core import keys
from tests.integration.test_keys import create
from tests.processes import Finished, command, invoke, invoked
from tests.support import Installation
from tests.unit.samples import KEY

pytestmark = pytest.mark.integration


def check(installation: Installation, *arguments: str, **env: str) -> Finished:
    """Run it in this process."""
    return invoke(installation, "keys", "check-leak", *arguments, env=env)


async def test_each_key_with_its_place_and_state(installed: Installation, tmp_path: Path) -> None:
    """Live, revoked and unknown ones, in files and folders; a repository's store and links are left alone."""
    live, revoked = [await create(installed, "--app", "leaky") for _ in range(2)]
    await invoked(installed, "keys", "revoke", revoked["id"])
    (tmp_path / "deep" / ".git").mkdir(parents=True)
    (tmp_path / "deep" / ".git" / "config").write_text(live["key"])
    (tmp_path / "deep" / "notes.txt").write_text(f"\n\nold {revoked['key']}\nand {KEY}\n")
    (tmp_path / "link").symlink_to(tmp_path)
    (tmp_path / "settings.bin").write_bytes(b"\xff\0\n" + live["key"].encode() + b"\xfe")
    forged = live["key"][:-36] + "0" * 30
    (tmp_path / "forged").write_text(forged + keys.checksum(forged))

    def run(*options: str) -> Finished:
        return check(installed, str(tmp_path), *options)

    finished = await asyncio.to_thread(run, "--json")
    assert finished.code == 1
    assert {(Path(f["file"]).name, f["line"], f["id"], f["app"], f["state"], f["live"]) for f in finished.json} == {
        ("settings.bin", 2, live["id"], "leaky", "active", True),
        ("notes.txt", 3, revoked["id"], "leaky", "revoked", False),
        ("notes.txt", 4, keys.parse(KEY), None, "unknown", False),
        ("forged", 1, live["id"], None, "unknown", False),
    }
    text = await asyncio.to_thread(run)
    assert f"settings.bin:2: key {live['id']} app leaky active" in text.out
    for key in (live["key"], revoked["key"], KEY):
        assert key[-36:] not in text.out + text.err + finished.out + finished.err
    (tmp_path / "settings.bin").unlink()
    assert (await asyncio.to_thread(run)).code == 0


async def test_what_is_piped_in(installed: Installation) -> None:
    """As a hook does: `git diff --cached | dispatcher keys check-leak -`."""
    made = await create(installed, "--app", "piped")
    escaped = json.dumps({"key": made["key"]}).replace("_", "\\u005f")
    finished = await command(installed, "keys", "check-leak", "-", stdin=f"\n{escaped}\n".encode())
    assert finished.code == 1
    assert finished.out == f"stdin:2: key {made['id']} app piped active\n"
    assert (await command(installed, "keys", "check-leak", "-", stdin=b"nothing")).code == 0


def test_without_mongodb_every_key_counts_as_live(installed: Installation, tmp_path: Path) -> None:
    """A note says why; with --offline nobody is asked. Without a key in them, files need no MongoDB."""
    (tmp_path / "a").write_text(KEY)
    (tmp_path / "b").write_text("nothing")
    nowhere = {"DISPATCHER_MONGO__URL": "mongodb://127.0.0.1:9/?directConnection=true"}
    finished = check(installed, str(tmp_path / "a"), **nowhere)
    assert finished.code == 1
    assert "cannot reach MongoDB" in finished.err
    assert finished.out.endswith("unchecked\n")
    assert "1 not known to be dead" in finished.err
    offline = check(installed, str(tmp_path / "a"), "--offline", "--json", **nowhere)
    assert offline.code == 1
    assert [found["state"] for found in offline.json] == ["unchecked"]
    assert "MongoDB" not in offline.err
    assert check(installed, str(tmp_path / "b"), "--json", **nowhere).out == "[]\n"


def test_wrong_use(installed: Installation, tmp_path: Path) -> None:
    """No file, or one that is not there: exit code 2. A name that holds a key is not repeated whole."""
    assert check(installed).code == 2
    assert check(installed, str(tmp_path / "missing")).code == 2
    named = tmp_path / f"x{KEY}"
    named.write_text(KEY)
    finished = check(installed, str(named), "--offline")
    assert finished.code == 1
    assert KEY[-36:] not in finished.out + finished.err
