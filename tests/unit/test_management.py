"""The management API's answers are another program's: none takes the password elsewhere, or more memory than it may."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from dispatcher.core.topology import Names, build
from dispatcher.edges import management
from dispatcher.edges.management import Management, ManagementError

pytestmark = pytest.mark.unit

AMQP = "amqp://who:secret@127.0.0.1/"


@contextmanager
def answering(code: int, body: bytes, **headers: str) -> Iterator[tuple[str, list[str | None]]]:
    """A server that always answers this; its address, and the Authorization of each request."""
    asked: list[str | None] = []

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            asked.append(self.headers.get("Authorization"))
            self.send_response(code)
            for name, value in {**headers, "Content-Length": str(len(body))}.items():
                self.send_header(name, value)
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}", asked
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


async def test_the_password_goes_nowhere_else() -> None:
    """A redirect is an error that names it."""
    with answering(200, b"[]") as (elsewhere, asked), answering(302, b"", Location=elsewhere) as (url, _):
        with pytest.raises(ManagementError, match="answers 302") as raised:
            await Management(url, AMQP).unacknowledged()
        assert asked == []
        assert "secret" not in str(raised.value)


async def test_an_answer_that_is_too_large_is_not_held(monkeypatch: pytest.MonkeyPatch) -> None:
    """It is read up to its bound."""
    monkeypatch.setattr(management, "MAX_ANSWER", 1 << 20)
    with answering(200, b"[" + b" " * (1 << 20) + b"]") as (url, _), pytest.raises(ManagementError, match="1 MiB"):
        await Management(url, AMQP).unacknowledged()


@pytest.mark.parametrize("body", [b"<html>", b"{}", b"[1]", b'"queues"'])
async def test_what_is_no_list_is_said(body: bytes) -> None:
    """With the setting to look at."""
    with answering(200, body) as (url, _), pytest.raises(ManagementError, match=r"amqp\.management_url"):
        await Management(url, AMQP).unacknowledged()


async def test_rows_that_lack_something_are_passed_by() -> None:
    """Of bindings, queues and their policies."""
    topology = build(Names(), ["default"])
    with answering(200, b'[{}, {"name": "x"}]') as (url, asked):
        api = Management(url, AMQP)
        assert await api.unacknowledged() == {}
        assert await api.policies(topology) == {}
        assert len(await api.missing_bindings(topology)) == len(topology.bindings)
    assert asked == ["Basic d2hvOnNlY3JldA=="] * 3
