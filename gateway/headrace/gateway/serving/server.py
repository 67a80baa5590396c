"""One process of the gateway: uvicorn, which drains the gateway before it stops."""

from __future__ import annotations

import resource
import signal
import socket
from contextlib import suppress
from typing import Final

import uvicorn

from headrace.contracts.settings import Settings
from headrace.gateway.application import create_app
from headrace.gateway.inference.gateway import Opening
from headrace.gateway.serving.limited_http import LimitedHttp

#: Seconds that connections have to close once all their requests are answered.
_CLOSING_S: Final = 2

#: Seconds that an idle connection is kept; longer than load balancers keep theirs, which close them first then.
_KEEP_ALIVE_S: Final = 75

#: Connections that wait to be accepted: bursts of a thousand clients are not refused.
_BACKLOG: Final = 4096


class GatewayServer(uvicorn.Server):
    """uvicorn's server, with a time before it stops in which requests get their answers and new ones are refused."""

    def __init__(self, config: uvicorn.Config, opening: Opening, grace_s: float) -> None:
        """opening: of the application. grace_s: for requests that wait for their answers."""
        super().__init__(config)
        self._opening = opening
        self._grace_s = grace_s

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """Drain the gateway, then close the connections and the port."""
        gateway = self._opening.opened
        if gateway is not None:
            await gateway.drain(self._grace_s)
        await super().shutdown(sockets)


def serve(settings: Settings, listening: socket.socket) -> None:
    """Run a gateway on a socket until SIGTERM or SIGINT."""
    _allow_many_connections()
    app = create_app(settings)
    config = uvicorn.Config(
        app,
        access_log=False,
        backlog=_BACKLOG,
        http=LimitedHttp,
        lifespan="on",
        log_level="warning",
        server_header=False,
        timeout_graceful_shutdown=_CLOSING_S,
        timeout_keep_alive=_KEEP_ALIVE_S,
        ws="none",
    )
    # When it has stopped, uvicorn raises the signal anew that stopped it; that must not end the process in the middle.
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: None)
    GatewayServer(config, app.state.opening, settings.gateway_grace_s).run([listening])


def listen(settings: Settings) -> socket.socket:
    """Return a socket that listens on the address of the settings. Raises OSError."""
    family = socket.AF_INET6 if ":" in settings.gateway_host else socket.AF_INET
    listening = socket.create_server(
        (settings.gateway_host, settings.gateway_port), family=family, backlog=_BACKLOG, reuse_port=False
    )
    listening.set_inheritable(True)
    return listening


def _allow_many_connections() -> None:
    """Raise the limit of open files to what this user may have; each connection is one."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    with suppress(ValueError, OSError):
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
