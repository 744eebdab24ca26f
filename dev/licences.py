"""`make licences`: the licences of what is shipped with Job Dispatcher; exit code 1 if one may not be.

Read from the metadata of the installed packages that requirements/runtime.txt pins: the field License-Expression
(https://packaging.python.org/en/latest/specifications/core-metadata/), else what older packages say in their
classifiers, else in the field License.
"""

import re
import sys
from importlib.metadata import PackageNotFoundError, distribution
from pathlib import Path

LOCK_FILE = Path(__file__).resolve().parent.parent / "requirements" / "runtime.txt"

#: Licences (SPDX) that ask for no more than their text and notices to be kept, which installed packages do. Everything
#: else is looked at by a person first; GPL and AGPL cannot be shipped with what users link their own handlers to.
ALLOWED = frozenset({"0BSD", "Apache-2.0", "BSD-2-Clause", "BSD-3-Clause", "ISC", "MIT", "PSF-2.0"})
#: What older packages write, in classifiers or as the field License, and which licence of ALLOWED it is.
_OLD_NAMES = {
    "Apache License, Version 2.0": "Apache-2.0",
    "Apache Software License": "Apache-2.0",
    "BSD License": "BSD-3-Clause",
    "ISC License (ISCL)": "ISC",
    "MIT License": "MIT",
    "Python Software Foundation License": "PSF-2.0",
}


def main() -> int:
    """Print a row for each package; returns the exit code."""
    found = {name: licence_of(name) for name in pinned(LOCK_FILE.read_text(encoding="utf-8"))}
    width = max(map(len, found))
    for name, licence in found.items():
        print(f"{name:{width}}  {licence or 'unknown'}{'' if allowed(licence) else '   <- not allowed'}")
    return 0 if all(map(allowed, found.values())) else 1


def pinned(lock: str) -> list[str]:
    """The names of the packages that a lock file pins."""
    return re.findall(r"^([\w.-]+)==", lock, re.MULTILINE)


def licence_of(name: str) -> str:
    """The licence of an installed package as an SPDX expression; empty if it is not installed or does not say."""
    try:
        metadata = distribution(name).metadata
    except PackageNotFoundError:
        return ""
    expression, free_text = (metadata.get_all(field, [""])[0] for field in ("License-Expression", "License"))
    classifiers = [line for line in metadata.get_all("Classifier", []) if line.startswith("License ::")]
    return told(expression, [line.rpartition(" :: ")[2] for line in classifiers], free_text)


def told(expression: str, classifiers: list[str], free_text: str) -> str:
    """One expression from what metadata says in three places; several classifiers are all demanded."""
    if expression:
        return expression
    if classifiers:
        return " AND ".join(_OLD_NAMES.get(name, name) for name in classifiers)
    return _OLD_NAMES.get(free_text, free_text.partition("\n")[0])


def allowed(expression: str) -> bool:
    """Whether all that an expression demands is allowed, or all of one choice (OR). With parentheses it is not."""
    return any(all(part.strip() in ALLOWED for part in choice.split(" AND ")) for choice in expression.split(" OR "))


if __name__ == "__main__":
    sys.exit(main())
