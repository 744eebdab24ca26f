"""What every text file of the project keeps to; a hook of .pre-commit-config.yaml, and a unit test.

No file above 1 MiB, no white space at the end of a line, one newline at the end of a file, no marker of a merge
conflict; YAML, JSON and TOML can be read. Binary files and the hostile inputs in tests/corpus are left alone.
"""

import json
import sys
import tomllib
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import yaml

MAX_BYTES = 1 << 20
#: Bytes as they are on purpose: hostile inputs; templates that are YAML only once they are filled in.
_AS_THEY_ARE = ("tests/corpus/",)
_TEMPLATES = "/templates/"
_MARKERS = (b"<<<<<<< ", b">>>>>>> ")

_READERS: dict[str, Callable[[str], Any]] = {
    ".json": json.loads,
    ".toml": tomllib.loads,
    ".yaml": lambda text: list(yaml.load_all(text, _Loader)),
    ".yml": lambda text: list(yaml.load_all(text, _Loader)),
}


class _Loader(yaml.SafeLoader):
    """Tags of other programs, as those of mkdocs.yml, are read as nothing."""


_Loader.add_multi_constructor("", lambda loader, suffix, node: None)


def main(names: Sequence[str]) -> int:
    """Look at these files; prints what is wrong, returns the exit code."""
    found = [f"{name}: {fault}" for name in names for fault in faults(name, Path(name).read_bytes())]
    print("\n".join(found), end="\n" if found else "")
    return 1 if found else 0


def faults(name: str, content: bytes) -> Iterator[str]:
    """What is wrong with a file, by its path in the project."""
    if len(content) > MAX_BYTES:
        yield f"{len(content):,} bytes, more than {MAX_BYTES:,}"
    if name.startswith(_AS_THEY_ARE) or b"\0" in content:
        return
    yield from _form(content)
    reader = _READERS.get(Path(name).suffix)
    if reader and _TEMPLATES not in f"/{name}":
        try:
            reader(content.decode())
        except (ValueError, yaml.YAMLError) as error:  # ValueError: JSON's, TOML's and UTF-8's
            yield f"cannot be read: {' '.join(str(error).split())}"


def _form(content: bytes) -> Iterator[str]:
    for number, line in enumerate(content.split(b"\n"), start=1):
        if line.rstrip() != line:
            yield f"line {number} ends with white space"
        if line.startswith(_MARKERS):
            yield f"line {number} marks a merge conflict"
    if content and (not content.endswith(b"\n") or content.endswith(b"\n\n")):
        yield "does not end with one newline"


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
