"""What workers ask one another about steps that were delivered again, and what they answer."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from schemas.job import Count, Model

#: Most steps in one question.
MAX_ASKED = 500

#: A step: app, id, run and number in the run.
AskedStep = tuple[str, str, Count, Count]
Indexes = tuple[Annotated[int, Field(ge=0, lt=MAX_ASKED)], ...]


class Question(Model):
    """Does anybody have one of these steps?"""

    v: Literal[1] = 1
    steps: Annotated[tuple[AskedStep, ...], Field(max_length=MAX_ASKED)]


class Answer(Model):
    """What one worker knows of the steps of a question, by their index.

    ``settled``: all that follows from it is confirmed. ``held``: it runs, or will run, here. ``in_doubt``: it was
    delivered here too, and this worker asks the others itself; ``worker`` orders those who do.
    """

    v: Literal[1] = 1
    worker: str
    settled: Indexes = ()
    held: Indexes = ()
    in_doubt: Indexes = ()
