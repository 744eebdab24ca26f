"""`make up`: the servers, and every service of the product in the foreground, until Ctrl-C.

What is given besides is passed on to `dispatcher up`. Servers that it starts keep their data in .servers/up.
"""

import os
import sys
from collections.abc import Sequence
from pathlib import Path

from dev.servers import ServerError, Servers, servers, shown
from dev.signals import ending_unwinds, run_child


def main(arguments: Sequence[str]) -> int:
    """Run `dispatcher up` on the servers; returns its exit code."""
    dispatcher = Path(sys.executable).with_name("dispatcher")
    try:
        with ending_unwinds(), servers(keep="up") as found:
            _say(found)
            return run_child([str(dispatcher), "up", *arguments], os.environ | found.environment())
    except ServerError as error:
        print(f"up: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("up: stopped")
        return 0


def _say(found: Servers) -> None:
    """Where things are; for another terminal, the variables that point the command line at them."""
    print(f"up: AMQP        {shown(found.amqp_url)}")
    print(f"up: MongoDB     {shown(found.mongo_url)}")
    if found.management_url:
        print(f"up: management  {found.management_url}  (user guest, password guest, unless yours differ)")
    if found.started:
        print("up: in another terminal, for the command line:")
        print(f"up:   export DISPATCHER_AMQP__URL={found.amqp_url} DISPATCHER_MONGO__URL='{found.mongo_url}'")
    print("up: Ctrl-C stops everything", flush=True)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
