"""`make fuzz`: hostile inputs to intake and to the recorder's reading of events, for as long as one likes.

What fails is made as small as it can be and kept in tests/corpus/, where a unit test runs it from then on.
"""

from __future__ import annotations

import argparse
import hashlib
import sys
import time
import traceback
from collections import Counter
from pathlib import Path

from hypothesis import HealthCheck, Phase, given, seed, settings

from dev.fuzz_inputs import CORPUS, INPUTS, corpus
from dev.fuzz_targets import TARGETS, must

#: Inputs between two looks at the clock.
ROUND = 500
#: No input of these sizes may take longer, in seconds of the processor.
LONGEST = 2.0


class Found(Exception):
    """An input on which a target fails, already made small, and how it fails."""

    def __init__(self, file: bytes, error: BaseException) -> None:
        super().__init__(f"{type(error).__name__}: {error}")
        self.file = file
        self.error = error


def tried(target: str, file: bytes) -> str:
    """What a target makes of an input; it must not take long either."""
    began = time.process_time()
    became = TARGETS[target](file)
    must(time.process_time() - began < LONGEST, "it took too long")
    return became


def run_round(target: str, number: int, examples: int) -> Counter[str]:
    """Try some inputs; returns what became of them.

    Raises:
        Found: one of them fails.
    """
    seen: Counter[str] = Counter()
    last: list[tuple[bytes, BaseException]] = []

    @seed(number)
    @settings(
        max_examples=examples,
        database=None,
        deadline=None,
        phases=[Phase.generate, Phase.shrink],
        report_multiple_bugs=False,
        suppress_health_check=list(HealthCheck),
    )
    @given(INPUTS[target]())
    def attempt(file: bytes) -> None:
        try:
            seen[tried(target, file)] += 1
        except Exception as error:
            last[:] = [(file, error)]
            raise

    try:
        attempt()
    except Exception:
        if not last:
            raise
        raise Found(*last[0]) from None
    return seen


def keep(target: str, file: bytes) -> Path:
    """Put an input into the corpus, to be named for what it is by whoever mends the fault."""
    path = CORPUS / target / f"found.{hashlib.sha256(file).hexdigest()[:12]}"
    path.write_bytes(file)
    return path


def replayed(target: str) -> bool:
    """Whether the whole corpus of a target still holds."""
    fine = True
    for path in corpus(target):
        try:
            tried(target, path.read_bytes())
        except Exception:
            print(f"fuzz: {path.name} of the corpus fails", file=sys.stderr)
            traceback.print_exc()
            fine = False
    return fine


def fuzz(target: str, seconds: float, number: int) -> bool:
    """Fuzz one target for some time; whether nothing was found."""
    seen: Counter[str] = Counter()
    ends = time.monotonic() + seconds
    first = number
    while time.monotonic() < ends:
        try:
            seen += run_round(target, number, ROUND)
        except Found as found:
            print(f"fuzz: {target} fails, seed {number}; kept as {keep(target, found.file)}", file=sys.stderr)
            traceback.print_exception(found.error)
            return False
        number += 1
    became = ", ".join(f"{name} {count}" for name, count in seen.most_common())
    print(f"fuzz: {target}: {seen.total()} inputs from seed {first} on, nothing found ({became})")
    return True


def main() -> int:
    """Run the command; returns 1 when something was found."""
    parser = argparse.ArgumentParser(prog="make fuzz", description=__doc__)
    parser.add_argument("--seconds", type=float, default=60, help="for how long, both targets together (60)")
    parser.add_argument("--target", choices=sorted(TARGETS), help="only this one")
    parser.add_argument("--seed", type=int, default=time.time_ns() % 10**9, help="where chance begins")
    asked = parser.parse_args()
    targets = [asked.target] if asked.target else sorted(TARGETS)
    fine = [replayed(target) and fuzz(target, asked.seconds / len(targets), asked.seed) for target in targets]
    return 0 if all(fine) else 1


if __name__ == "__main__":
    sys.exit(main())
