"""`make up`: the servers, and every service of the product in the foreground, until Ctrl-C.

What is given besides is passed on to `dispatcher up`; without it, the example handlers run too. Servers that it
starts keep their data in .servers/up. While it runs, `source .servers/env` points another terminal at it all.
"""

import os
import shlex
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from dev.servers import ServerError, Servers, servers, shown
from dev.signals import ending_unwinds, run_child

ENV_FILE = Path(".servers/env")
EXAMPLE = ("--worker", "examples.handlers:jobs")


def main(arguments: Sequence[str]) -> int:
    """Run `dispatcher up` on the servers; returns its exit code."""
    dispatcher = Path(sys.executable).with_name("dispatcher")
    try:
        with ending_unwinds(), servers(keep="up") as found, _env_file(found, dispatcher.parent):
            _say(found)
            command = [str(dispatcher), "up", *(arguments or EXAMPLE)]
            return run_child(command, os.environ | found.environment())
    except ServerError as error:
        print(f"up: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("up: stopped")
        return 0


@contextmanager
def _env_file(found: Servers, programs: Path) -> Iterator[None]:
    """A file to source, while we run: where the servers are, and our programs on PATH."""
    variables = found.environment() | {"AMQP_URL": found.amqp_url}
    if found.management_url:
        variables["DISPATCHER_AMQP__MANAGEMENT_URL"] = found.management_url
    lines = [f"export {name}={shlex.quote(value)}" for name, value in variables.items()]
    ENV_FILE.parent.mkdir(exist_ok=True)
    ENV_FILE.write_text("\n".join([*lines, f'export PATH={shlex.quote(str(programs))}:"$PATH"', ""]), encoding="utf-8")
    ENV_FILE.chmod(0o600)
    try:
        yield
    finally:
        ENV_FILE.unlink(missing_ok=True)


def _say(found: Servers) -> None:
    print(f"up: AMQP        {shown(found.amqp_url)}")
    print(f"up: MongoDB     {shown(found.mongo_url)}")
    if found.management_url:
        print(f"up: management  {found.management_url}  (user guest, password guest, unless yours differ)")
    print(f"up: in another terminal:  source {ENV_FILE}")
    print("up: Ctrl-C stops everything", flush=True)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
