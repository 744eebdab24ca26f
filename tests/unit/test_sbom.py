"""What an SBOM has to say: what is pinned, and ourselves."""

from __future__ import annotations

import sys

import pytest

from dev import sbom

LOCK = f"""\
# made by a tool
a-b==1.0 \\
    --hash=sha256:00
    # via c
c==2.0 ; sys_platform == '{sys.platform}' \\
    --hash=sha256:00
d==3.0 ; sys_platform == 'other' \\
    --hash=sha256:00
"""


def document(**versions: str) -> dict[str, object]:
    """A document with these packages."""
    return {"components": [{"name": name, "version": version} for name, version in versions.items()]}


def test_what_is_pinned_for_this_platform() -> None:
    """A marker of another one does not count."""
    assert sbom.pins(LOCK) == {"a-b": "1.0", "c": "2.0"}


def test_a_document_that_says_what_is_pinned() -> None:
    """Names are compared as indexes compare them."""
    assert sbom.differences(document(A_b="1.0", c="2.0", job_dispatcher="0.1.0"), LOCK) == []


@pytest.mark.parametrize(
    ("versions", "said"),
    [
        ({"a-b": "1.0", "c": "2.0"}, "job-dispatcher itself is missing"),
        ({"a-b": "1.0", "job-dispatcher": "0"}, "c: 2.0 is pinned, nothing is there"),
        ({"a-b": "1.1", "c": "2.0", "job-dispatcher": "0"}, "a-b: 1.0 is pinned, 1.1 is there"),
        ({"a-b": "1.0", "c": "2.0", "pip": "9", "job-dispatcher": "0"}, "pip: nothing is pinned, 9 is there"),
    ],
)
def test_a_document_that_says_something_else(versions: dict[str, str], said: str) -> None:
    """The difference is named."""
    assert sbom.differences(document(**versions), LOCK) == [said]
