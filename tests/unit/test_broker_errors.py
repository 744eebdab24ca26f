"""What RabbitMQ says, as a sentence that says what to do."""

from __future__ import annotations

import pytest
from aio_pika.exceptions import AMQPConnectionError, AMQPError, AuthenticationError

from dispatcher.edges.amqp.link import explain

URL = "amqp://shop:hush@broker:5672/jobs"
LOGIN = "ACCESS_REFUSED - Login was refused using authentication mechanism PLAIN"
QUEUE = "ACCESS_REFUSED - access to queue 'rejected' in vhost '/' refused for user 'shop'"
VHOST = "NOT_ALLOWED - access to vhost 'jobs' refused for user 'shop'"


@pytest.mark.parametrize(
    ("error", "says"),
    [
        (AuthenticationError(LOGIN), "refused the user or password"),
        (AMQPError(LOGIN), "refused the user or password"),
        (AMQPError(QUEUE), "lacks a right (ACCESS_REFUSED - access to queue 'rejected'"),
        (AMQPConnectionError(VHOST), "lacks a right (NOT_ALLOWED - access to vhost"),
        (AMQPConnectionError("NOT_ALLOWED - vhost jobs not found"), "no such virtual host, or its user may not use it"),
        (AMQPError("NOT_FOUND - no queue 'rejected' in vhost '/'"), "dispatcher topology apply"),
        (TimeoutError(), "cannot use RabbitMQ"),
    ],
    ids=str,
)
def test_each_refusal_is_told_from_the_others(error: Exception, says: str) -> None:
    """A right that lacks is no wrong password, and no password is said."""
    sentence = explain(error, URL)
    assert says in sentence
    assert "hush" not in sentence
