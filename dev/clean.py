"""`make clean`: stop what runs below .servers and remove that folder."""

import sys
from pathlib import Path

from dev.process import ServerError
from dev.runs import clean


def main() -> int:
    """Return 1 when something could not be stopped."""
    try:
        clean(Path(".servers"))
    except ServerError as error:
        print(f"clean: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
