"""Ask a server whether it is there, with a real handshake: an open port alone proves nothing."""

import logging
import urllib.error
import urllib.request
from typing import Any

import pika
import pika.exceptions
import pymongo
import pymongo.errors


def amqp_answers(url: str) -> str | None:
    """The version of the RabbitMQ at `url`, logged in to; None when there is none."""
    logger = logging.getLogger("pika")
    level = logger.level
    logger.setLevel(logging.CRITICAL + 1)  # it reports each failed attempt as an error
    try:
        parameters = pika.URLParameters(url)
        parameters.socket_timeout = parameters.stack_timeout = 5
        parameters.blocked_connection_timeout = 5
        parameters.connection_attempts = 1
        connection = pika.BlockingConnection(parameters)
        version = _version(connection)
        connection.close()
    except (pika.exceptions.AMQPError, OSError, ValueError):
        return None
    finally:
        logger.setLevel(level)
    return version


def _version(connection: Any) -> str:
    properties: dict[str, Any] = getattr(connection._impl, "server_properties", None) or {}
    version = properties.get("version", "(version unknown)")
    return version.decode() if isinstance(version, bytes) else str(version)


def mongo_answers(url: str) -> str | None:
    """The version of the MongoDB at `url`; None when there is none."""
    try:
        with pymongo.MongoClient[dict[str, Any]](url, serverSelectionTimeoutMS=2_000) as client:
            client.admin.command("ping")
            return str(client.server_info()["version"])
    except (pymongo.errors.PyMongoError, OSError, ValueError):
        return None


def management_answers(url: str) -> bool:
    """Whether a RabbitMQ management interface is at `url` (it may ask for a password)."""
    try:
        with urllib.request.urlopen(f"{url}/api/overview", timeout=2):
            return True
    except urllib.error.HTTPError as error:
        return error.code == 401
    except (OSError, ValueError):
        return False
