"""Who runs this process, for the audit."""

from __future__ import annotations

import getpass
import os
import socket


def whoami() -> str:
    """``user@host``, as the operating system knows them; a user without a name is its number."""
    try:
        user = getpass.getuser()
    except (KeyError, OSError):  # a container's user need not stand in its list of users
        user = f"uid-{os.getuid()}" if hasattr(os, "getuid") else "unknown"
    return f"{user}@{socket.gethostname()}"
