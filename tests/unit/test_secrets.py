"""Secrets of well-known forms in messages and tracebacks."""

from __future__ import annotations

import time

import pytest

from consumers.failures import describe
from dispatcher.core import secrets

SECRET = "hunter2x9"
JWT = "eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiIxMjM0In0.c2lnbmF0dXJl"


def hide(text: str) -> str:
    """The text with its secrets hidden."""
    return secrets.hide(text.encode()).decode()


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        (f"password={SECRET} was wrong", "password=*** was wrong"),
        (f"DB_PASSWORD: {SECRET}", "DB_PASSWORD: ***"),
        (f"{{'password': '{SECRET} and more', 'user': 'ann'}}", "{'password': ***, 'user': 'ann'}"),
        (f'{{"api_key": "{SECRET}", "n": 1}}', '{"api_key": ***, "n": 1}'),
        (f"?token={SECRET}&page=2", "?token=***&page=2"),
        (f"client_secret => {SECRET};", "client_secret => ***;"),
        (f"connect(host, passwd='{SECRET}')", "connect(host, passwd=***)"),
        (f"amqp://ann:{SECRET}@rabbit:5672/", "amqp://ann:***@rabbit:5672/"),
        (f"redis://:{SECRET}@cache", "redis://:***@cache"),
        (f"mongodb://a:{SECRET}@{SECRET}@db/x", "mongodb://a:***@db/x"),
        (f"Authorization: Basic {SECRET}", "Authorization: ***"),
        (f"Authorization: Bearer {SECRET}", "Authorization: ***"),
        (f"the header was Bearer {SECRET}", "the header was Bearer ***"),
        (f"got {JWT} here", "got *** here"),
        ("key AKIAIOSFODNN7EXAMPLE is not allowed", "key *** is not allowed"),
        (f"-----BEGIN RSA PRIVATE KEY-----\n{SECRET}\n-----END RSA PRIVATE KEY-----\nrest", "***\nrest"),
        (f"-----BEGIN PRIVATE KEY-----\n{SECRET}", "***"),
        (f'said "{{\\"password\\": \\"{SECRET}\\"}}"', 'said "{\\"password\\": \\***}"'),
    ],
)
def test_a_secret_is_hidden_and_the_rest_stays(text: str, shown: str) -> None:
    """The name tells what was there."""
    assert hide(text) == shown


@pytest.mark.parametrize(
    "text",
    [
        "KeyError: 'password'",
        "the token expired an hour ago",
        "http://example.org:8080/path?page=2",
        'File "/srv/app/tokens.py", line 3, in read',
        "ConnectionError: the other side hung up",
        "a basic functionality",
    ],
)
def test_what_is_no_secret_stays(text: str) -> None:
    """A traceback must still be of use."""
    assert hide(text) == text


def test_an_exception_hides_them_in_message_and_traceback() -> None:
    """Wherever the text stands: in the message, in a line of the source, in a cause."""

    def connect(url: str) -> None:
        raise ConnectionError(f"cannot reach {url}")

    try:
        try:
            connect(f"amqp://ann:{SECRET}@rabbit")
        except ConnectionError as error:
            raise RuntimeError(f"token={SECRET}") from error
    except RuntimeError as error:
        told = describe(error)
    assert SECRET not in told.model_dump_json()
    assert told.message == "token=***"
    assert "cannot reach amqp://ann:***@rabbit" in (told.traceback or "")


@pytest.mark.parametrize("unit", ["a", "password", 'pwd="', "://a:", "-----BEGIN PRIVATE KEY-----", "eyJ", "token "])
def test_a_hostile_text_is_read_once(unit: str) -> None:
    """A megabyte of what almost looks like a secret: its time grows with its length, not with the square of it."""
    text = unit * (1_000_000 // len(unit))
    began = time.process_time()
    hide(text)
    assert time.process_time() - began < 5
