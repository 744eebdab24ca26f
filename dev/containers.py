"""RabbitMQ and MongoDB in containers of a test run, through testcontainers.

Which images: RABBITMQ_IMAGE= and MONGO_IMAGE= given to make, else those of docker-compose.yml.
"""

import time
from collections.abc import Iterator
from contextlib import contextmanager

from testcontainers.core.container import DockerContainer

from dev.images import image
from dev.mongo import initiate_set
from dev.probe import amqp_answers, mongo_answers
from dev.process import ServerError, wait_until


@contextmanager
def rabbit_container(timeout: float = 120) -> Iterator[tuple[str, str]]:
    """A RabbitMQ: its AMQP URL and that of its management interface."""
    name = image("RabbitMQ")
    with DockerContainer(name).with_exposed_ports(5672, 15672) as container:
        host = container.get_container_host_ip()
        url = f"amqp://guest:guest@{host}:{container.get_exposed_port(5672)}"
        if not wait_until(lambda: amqp_answers(url) is not None, timeout, 0.2):
            raise ServerError(f"the container of {name} did not answer within {timeout:.0f} s")
        yield url, f"http://{host}:{container.get_exposed_port(15672)}"


@contextmanager
def mongo_container(timeout: float = 120) -> Iterator[str]:
    """A MongoDB, replica set of one node: its connection string."""
    name = image("MongoDB")
    deadline = time.monotonic() + timeout
    command = "mongod --replSet rs0 --bind_ip_all --wiredTigerCacheSizeGB 0.5"
    with DockerContainer(name).with_exposed_ports(27017).with_command(command) as container:
        port = container.get_exposed_port(27017)
        url = f"mongodb://{container.get_container_host_ip()}:{port}/?directConnection=true"
        if not wait_until(lambda: mongo_answers(url) is not None, timeout, 0.2):
            raise ServerError(f"the container of {name} did not answer within {timeout:.0f} s")
        initiate_set(url, "localhost:27017", max(1.0, deadline - time.monotonic()))
        yield url
