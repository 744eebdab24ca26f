"""The port on which a service would answer."""

from __future__ import annotations

import asyncio
import json
import urllib.error
import urllib.request

from config import Settings
from dispatcher.core.diagnosis import Finding, failed, fine, warning

#: Longest wait for an answer, in seconds.
TIMEOUT = 3.0


async def check_port(settings: Settings) -> list[Finding]:
    """Whether it is free, or a service of ours has it."""
    host, port = settings.http.host, settings.http.port
    if not port:
        return [fine("port", "any free one (http.port is not set)")]
    return [await asyncio.to_thread(_look, "127.0.0.1" if host in ("0.0.0.0", "::") else host, port)]


def _look(host: str, port: int) -> Finding:
    check, where = "port", f"{host}:{port}"
    shown = f"[{host}]:{port}" if ":" in host else where
    try:
        status, body = _ask(f"http://{shown}/readyz")
        answer = json.loads(body)
        checks = dict(answer["checks"])
    except ConnectionRefusedError:
        return fine(check, f"{where} is free")
    except (OSError, ValueError, KeyError, TypeError):
        return failed(
            check, f"something else answers at {where}", "set http.port (DISPATCHER_HTTP__PORT) to a free port"
        )
    if status == 200:
        return fine(check, f"a service answers at {where}, and is ready")
    wrong = ", ".join(name for name, good in checks.items() if not good)
    return warning(check, f"the service at {where} is not ready: {wrong}", "look at its log, and at the lines below")


def _ask(url: str) -> tuple[int, bytes]:
    """Status and body.

    Raises:
        ConnectionRefusedError: nobody listens.
        OSError, ValueError: what answers is no HTTP.
    """
    try:
        with urllib.request.urlopen(url, timeout=TIMEOUT) as response:
            return response.status, response.read()
    except urllib.error.HTTPError as error:
        with error:
            return error.code, error.read()
    except urllib.error.URLError as error:
        if isinstance(error.reason, ConnectionRefusedError):
            raise error.reason from None
        raise
    except Exception as error:
        raise ValueError(str(error)) from None
