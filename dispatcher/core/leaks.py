"""Whole API keys in streams of any bytes: by their form and checksum, also escaped in JSON, also in UTF-16."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from dispatcher.core.keys import find_keys

#: A line is looked at in pieces; so much of the end of one is looked at with the next, since a key may be cut. A key
#: has at most 90 characters; with every character escaped, in JSON within JSON, some thousand.
OVERLAP = 8_192


def scan(blocks: Iterable[bytes]) -> Iterator[tuple[int, str]]:
    """Each key in a stream, once a line: (line from 1, key). Memory is bounded by the length of a block."""
    line, rest = 1, b""
    seen: set[str] = set()
    for block in blocks:
        # UTF-16, as some shells write it, is ASCII with a NUL beside every character
        data = rest + block.replace(b"\0", b"")
        if b"jd_" not in data and b"\\u00" not in data:  # most blocks of most files: no need to look at every line
            line += data.count(b"\n")
            seen = set() if b"\n" in data else seen
            rest = data[data.rfind(b"\n") + 1 :][-OVERLAP:]
            continue
        for number, piece in enumerate(pieces := data.split(b"\n")):
            if number:
                line, seen = line + 1, set()
            for key in find_keys(piece):
                if key not in seen:
                    seen.add(key)
                    yield line, key
        rest = pieces[-1][-OVERLAP:]
