"""The C library's allocator, which keeps what Python frees."""

from __future__ import annotations

import ctypes
from typing import Any

_trim: Any = getattr(ctypes.CDLL(None), "malloc_trim", None)


def give_back() -> None:
    """Return free memory to the system; where the C library is not glibc, nothing.

    glibc returns only what is free at the end of an arena, and each thread may have an arena of its own: two results
    of 100 MB in pieces, made in two threads, left 200 MB for good.
    """
    if _trim is not None:
        _trim(0)
