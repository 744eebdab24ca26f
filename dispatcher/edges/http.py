"""The small HTTP server of every service: /healthz, /readyz and /metrics."""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections.abc import Callable

import uvicorn
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, PlainTextResponse, Response
from starlette.routing import Route

from dispatcher.core.errors import DispatcherError
from dispatcher.edges import log, metrics

_logger = log.get("http")


class HttpError(DispatcherError):
    """The HTTP server cannot start; the sentence says what to do."""


class HttpServer:
    """Serves probes and metrics until closed.

    Args:
        host: address to listen on.
        port: port, or None for any free one.
        checks: name to current answer, of everything that must be fine for readiness.
    """

    def __init__(self, host: str, port: int | None, checks: Callable[[], dict[str, bool]]) -> None:
        self._host = host
        self._wanted = port or 0
        self._checks = checks
        self._server: uvicorn.Server | None = None
        self._task: asyncio.Task[None] | None = None
        #: The port in use, once started.
        self.port = 0

    async def start(self) -> None:
        """Listen.

        Raises:
            HttpError: the port is taken.
        """
        sock = self._bind()
        self.port = sock.getsockname()[1]
        config = uvicorn.Config(self._app(), log_config=None, access_log=False, lifespan="off", ws="none")
        self._server = _Server(config)
        self._task = asyncio.create_task(self._server.serve(sockets=[sock]), name="http")
        _logger.info("listening", url=f"http://{self._host}:{self.port}")

    def _bind(self) -> socket.socket:
        family = socket.AF_INET6 if ":" in self._host else socket.AF_INET
        sock = socket.socket(family, socket.SOCK_STREAM)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            sock.bind((self._host, self._wanted))
            sock.listen()  # from now on, so that who reads the port in the log can connect at once
        except OSError as error:
            sock.close()
            raise HttpError(
                f"cannot listen on {self._host}:{self._wanted} ({error.strerror}); set http.port "
                "(DISPATCHER_HTTP__PORT) to a free port, or leave it unset for any"
            ) from None
        return sock

    async def close(self) -> None:
        """Stop listening."""
        if self._server is not None and self._task is not None:
            self._server.should_exit = True
            with contextlib.suppress(asyncio.CancelledError):
                await self._task

    def _app(self) -> Starlette:
        return Starlette(
            routes=[
                Route("/healthz", self._healthz),
                Route("/readyz", self._readyz),
                Route("/metrics", self._metrics),
            ]
        )

    async def _healthz(self, _: Request) -> Response:
        return PlainTextResponse("ok\n")

    async def _readyz(self, _: Request) -> Response:
        checks = self._checks()
        ready = all(checks.values())
        return JSONResponse({"ready": ready, "checks": checks}, status_code=200 if ready else 503)

    async def _metrics(self, _: Request) -> Response:
        body, content_type = metrics.render()
        return Response(body, media_type=content_type)


class _Server(uvicorn.Server):
    """Leaves the process's signals to the service."""

    @contextlib.contextmanager
    def capture_signals(self):  # type: ignore[no-untyped-def]
        yield
