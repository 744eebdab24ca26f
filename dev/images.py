"""Which images the servers of a test run come from, where they run in containers."""

import os
from typing import Literal

Server = Literal["RabbitMQ", "MongoDB"]

#: As in docker-compose.yml. A name without a host is looked up where the Docker engine looks by default.
_USUAL: dict[Server, str] = {"RabbitMQ": "rabbitmq:4.1-management", "MongoDB": "mongo:8.0"}
#: What `make` takes to choose others: `make test RABBITMQ_IMAGE=rabbitmq:3.13-management MONGO_IMAGE=mongo:7`.
VARIABLES: dict[Server, str] = {"RabbitMQ": "RABBITMQ_IMAGE", "MongoDB": "MONGO_IMAGE"}


def asked_image(server: Server) -> str:
    """The image that was asked for; empty if none was. If one was, no other server will do."""
    return os.environ.get(VARIABLES[server], "")


def image(server: Server) -> str:
    """The image to start: the asked one, or that of docker-compose.yml. RabbitMQ's needs its management plugin."""
    return asked_image(server) or _USUAL[server]
