"""What samples of memory say: a row for each process and phase, and what is out of bounds in it.

The bounds, and why they are these:

- A phase's peak may exceed the process's idle memory by what its prefetch and its caches explain (`EXPLAINED`), and
  by `SLACK` for what the allocators keep. A queue that is longer must not be seen: a process that held one byte in
  ten of a million queued jobs of 300 bytes would be 30 MB larger, and one that held them all, a gigabyte and more.
- In the steady phase, the line through the samples may rise by less than `GROWTH` of the memory in an hour. A short
  run cannot tell that from the allocator's own steps, so a rise of less than `STEP` within the phase is none.
- A handler's 100 MB are in the worker while the handler lives. Those of another thread may follow before the
  allocator's free memory is returned, which happens twice a minute: `HUGE_TIMES` of them (`HUGE_PEAK`). Afterwards
  all are gone (`HUGE_LEFT`).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

KIB, MIB = 1 << 10, 1 << 20

IDLE, HUGE, STEADY = "idle", "huge", "steady"

#: Bytes that each kind of service may have besides its idle memory: how many of what, and how large one is at most
#: in Python's memory. Jobs of the soak have some 300 bytes.
EXPLAINED: Mapping[str, Mapping[str, tuple[int, int]]] = {
    "intake": {
        "messages held (prefetch 500), each as delivered, admitted and encoded": (500, 16 * KIB),
        "keys": (10_000, 2 * KIB),
        "unknown keys remembered": (10_000, KIB // 4),
    },
    "worker": {
        "jobs held (200 for each of 5 priorities)": (1_000, 16 * KIB),
        "steps remembered": (20_000, KIB // 2),
    },
    "recorder": {"events held (16 MiB of them, and what is made of each byte)": (16 * MIB, 8)},
    "scheduler": {"minutes of statistics": (1_000, 4 * KIB)},
}
SLACK = 32 * MIB
GROWTH = 0.10
#: Two of the arenas in which Python's allocator takes memory.
STEP = 2 * MIB
#: How often each kind of huge result is returned, one after the other.
HUGE_TIMES = 3
HUGE_PEAK = HUGE_TIMES * 100_000_000 + SLACK
HUGE_LEFT = 32 * MIB
#: The first part of a steady phase that is not looked at: caches fill and a backlog's end is near.
SETTLES = 0.2
HOUR = 3600.0


@dataclass(frozen=True, slots=True)
class Sample:
    """A process's memory at a time (seconds): resident bytes, and the most since its phase began."""

    process: str
    phase: str
    at: float
    rss: int
    pss: int
    peak: int

    @property
    def kind(self) -> str:
        """Which service it is."""
        return self.process.partition("-")[0]


@dataclass(frozen=True, slots=True)
class Row:
    """A process in a phase. ``growth``: bytes an hour, of the steady phase; ``problems``: bounds that are broken."""

    process: str
    phase: str
    begin: int
    end: int
    peak: int
    pss: int
    growth: float | None
    problems: tuple[str, ...]


def explained(kind: str) -> int:
    """Bytes above its idle memory that a service may have."""
    return SLACK + sum(count * size for count, size in EXPLAINED[kind].values())


def slope(points: Sequence[tuple[float, float]]) -> float:
    """The rise of the line of least squares; 0 where one point, or one time, says nothing."""
    if not points:
        return 0.0
    mean_x = sum(x for x, _ in points) / len(points)
    mean_y = sum(y for _, y in points) / len(points)
    spread = sum((x - mean_x) ** 2 for x, _ in points)
    return sum((x - mean_x) * (y - mean_y) for x, y in points) / spread if spread else 0.0


def rows(samples: Iterable[Sample]) -> list[Row]:
    """A row for each process and phase, in the order of their first samples."""
    groups: dict[tuple[str, str], list[Sample]] = {}
    for sample in samples:
        groups.setdefault((sample.process, sample.phase), []).append(sample)
    idle = {process: found[-1].rss for (process, phase), found in groups.items() if phase == IDLE}
    return [_row(found, idle.get(process)) for (process, _), found in groups.items()]


def _row(found: Sequence[Sample], idle: int | None) -> Row:
    first, last = found[0], found[-1]
    peak = max(sample.peak for sample in found)
    growth = HOUR * _steady_slope(found) if first.phase == STEADY else None
    problems: list[str] = []
    if first.kind in EXPLAINED and first.process.count(" ") == 0:
        problems += _peak_problems(first, last, peak, idle)
        if growth is not None:
            problems += _growth_problems(found, growth)
    return Row(first.process, first.phase, first.rss, last.rss, peak, last.pss, growth, tuple(problems))


def _peak_problems(first: Sample, last: Sample, peak: int, idle: int | None) -> list[str]:
    if first.phase == IDLE:
        return []
    if idle is None:
        return ["its idle memory is not known"]
    if first.phase == HUGE and first.kind == "worker":
        found = []
        if peak > first.rss + HUGE_PEAK:
            found.append(f"its peak is {_mib(peak - first.rss)} above its beginning, at most {_mib(HUGE_PEAK)}")
        if last.rss > first.rss + HUGE_LEFT:
            found.append(f"{_mib(last.rss - first.rss)} are left, at most {_mib(HUGE_LEFT)}")
        return found
    most = explained(first.kind)
    return [f"its peak is {_mib(peak - idle)} above idle, at most {_mib(most)}"] if peak > idle + most else []


def _settled(found: Sequence[Sample]) -> Sequence[Sample]:
    begin = found[0].at + SETTLES * (found[-1].at - found[0].at)
    return [sample for sample in found if sample.at >= begin]


def _steady_slope(found: Sequence[Sample]) -> float:
    return slope([(sample.at, float(sample.rss)) for sample in _settled(found)])


def _growth_problems(found: Sequence[Sample], growth: float) -> list[str]:
    settled = _settled(found)
    hours = (settled[-1].at - settled[0].at) / HOUR
    most = GROWTH * sum(sample.rss for sample in settled) / len(settled)
    if growth <= most or growth * hours <= STEP:
        return []
    return [f"it grows by {_mib(growth)} an hour, at most {_mib(most)}"]


def _mib(size: float) -> str:
    return f"{size / MIB:.1f} MiB"
