"""A job that is larger when it is written out than when it came: no broker's limit stops intake."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from dispatcher.services.intake import Intake
from tests.conftest import make_settings, run_services
from tests.support import Installation, eventually

pytestmark = pytest.mark.integration

LARGEST = 8 << 20  # what intake.max_body_bytes may be


@pytest.fixture(scope="module")
def roomy() -> Iterator[Installation]:
    """An installation that takes bodies as large as can be configured."""
    installation = Installation(make_settings(DISPATCHER_INTAKE__MAX_BODY_BYTES=str(LARGEST)))
    installation.apply()
    yield installation
    installation.remove()


async def test_a_job_that_grows_over_the_limit_of_rabbitmq_is_refused(roomy: Installation) -> None:
    """Its 6 MB are within what is configured, written out they are 23: it is refused, and the next job goes on."""
    numbers = b",".join([b"1e15"] * 1_200_000)
    key = await roomy.create_key()
    async with run_services(Intake(roomy.settings)):
        roomy.publish_many(
            [
                ("large.grows", b'{"payload":{"n":[' + numbers + b"]}}"),
                ("large.as_it_is", {"payload": {"text": "x" * (LARGEST - 100)}}),
                ("large.next", {}),
            ],
            key,
        )
        ((headers, body),) = await roomy.rejected()
        assert headers["x-rejected-reason"].startswith("too_large: the job takes 22")
        assert numbers in body
        queue = roomy.names.work_queue("default", "normal")
        await eventually(lambda: roomy.depth(queue) == 2, "the others are accepted")
