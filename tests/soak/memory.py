"""How much memory processes have, as the kernel says (Linux)."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

PROC = Path("/proc")


@dataclass(frozen=True, slots=True)
class Memory:
    """Bytes resident; resident with shared pages divided among their users; most resident since the last reset."""

    rss: int
    pss: int
    peak: int

    def __add__(self, other: Memory) -> Memory:
        return Memory(self.rss + other.rss, self.pss + other.pss, self.peak + other.peak)


NOTHING = Memory(0, 0, 0)


def memory(pid: int) -> Memory:
    """Of one process; nothing where it has ended."""
    try:
        status = _fields(PROC / str(pid) / "status")
        rollup = _fields(PROC / str(pid) / "smaps_rollup")
    except OSError:
        return NOTHING
    return Memory(status.get("VmRSS", 0), rollup.get("Pss", 0), status.get("VmHWM", 0))


def total(pids: Iterable[int]) -> Memory:
    """Of several processes together."""
    return sum(map(memory, pids), NOTHING)


def reset_peak(pid: int) -> None:
    """Let the process's peak begin anew from what it has now."""
    try:
        (PROC / str(pid) / "clear_refs").write_text("5")
    except OSError:
        pass


def descendants(pid: int) -> list[int]:
    """Every process that this one started, and those that they started."""
    children: defaultdict[int, list[int]] = defaultdict(list)
    for entry in PROC.glob("[0-9]*/stat"):
        try:
            parent = int(entry.read_text().rpartition(")")[2].split()[1])
        except OSError:
            continue
        children[parent].append(int(entry.parent.name))
    found = list(children[pid])
    for child in found:  # grows while it is read
        found += children[child]
    return found


def _fields(path: Path) -> dict[str, int]:
    """The lines of the form ``Name: 12 kB``, in bytes."""
    found = {}
    for line in path.read_text().splitlines():
        words = line.split()
        if len(words) == 3 and words[2] == "kB":
            found[words[0].rstrip(":")] = int(words[1]) * 1024
    return found
