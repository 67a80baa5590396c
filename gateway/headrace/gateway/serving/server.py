"""One process of the gateway: uvicorn, which drains the gateway before it stops."""

from __future__ import annotations

import resource
import signal
import socket
from contextlib import suppress
from typing import TYPE_CHECKING, Final

import uvicorn

from headrace.contracts.settings import Settings
from headrace.gateway.application import create_app
from headrace.gateway.inference.gateway import Opening
from headrace.gateway.serving.limited_http import LimitedHttp
from headrace.gateway.serving.own_pages import OwnPages

if TYPE_CHECKING:
    from headrace.gateway.rpc.server import RpcServer

#: Seconds that connections have to close once all their requests are answered.
_CLOSING_S: Final = 2

#: Seconds that an idle connection is kept; longer than load balancers keep theirs, which close them first then.
_KEEP_ALIVE_S: Final = 75

#: Connections that wait to be accepted: bursts of a thousand clients are not refused.
_BACKLOG: Final = 4096


class GatewayServer(uvicorn.Server):
    """uvicorn's server, with gRPC beside it on the same event loop.

    Before it stops there is a time in which requests get their answers and new ones are refused.
    """

    def __init__(self, config: uvicorn.Config, opening: Opening, rpc_address: str) -> None:
        """opening: of the application. rpc_address: HOST:PORT for gRPC, "" to do without."""
        super().__init__(config)
        self._opening = opening
        self._rpc_address = rpc_address
        self._rpc: RpcServer | None = None

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Take requests."""
        await super().startup(sockets)
        if self._rpc_address and self.started:
            from headrace.gateway.rpc.server import RpcServer

            self._rpc = RpcServer(self._opening.open(), self._rpc_address)
            await self._rpc.start()

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """Drain the gateway, then close the connections and the ports."""
        gateway = self._opening.opened
        if gateway is not None:
            await gateway.drain(gateway.settings.gateway_grace_s)
        if self._rpc is not None:
            await self._rpc.stop(_CLOSING_S)
        await super().shutdown(sockets)


def serve(settings: Settings, listening: socket.socket) -> None:
    """Run a gateway on a socket until SIGTERM or SIGINT."""
    _allow_many_connections()
    app = create_app(settings)
    config = uvicorn.Config(
        OwnPages(app),
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
    rpc_address = address_of(listening, settings.gateway_grpc_port) if settings.gateway_grpc else ""
    GatewayServer(config, app.state.opening, rpc_address).run([listening])


def address_of(listening: socket.socket, port: int) -> str:
    """Return an address on the host of a socket, as HOST:PORT."""
    host = listening.getsockname()[0]
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def listen(settings: Settings) -> socket.socket:
    """Return a socket that listens on the address of the settings. Raises OSError."""
    family = socket.AF_INET6 if ":" in settings.gateway_host else socket.AF_INET
    listening = socket.create_server(
        (settings.gateway_host, settings.gateway_port), family=family, backlog=_BACKLOG, reuse_port=False
    )
    listening.set_inheritable(True)
    return listening


def reserve(settings: Settings) -> socket.socket:
    """Return a socket that keeps the port for gRPC, whose servers in each process share it. Raises OSError.

    gRPC opens its sockets itself, and lets any process of this user have the port with it. So this socket takes the
    port alone first, which fails where another gateway has it, and permits others only then.
    """
    family = socket.AF_INET6 if ":" in settings.gateway_host else socket.AF_INET
    reserved = socket.socket(family)
    try:
        reserved.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        reserved.bind((settings.gateway_host, settings.gateway_grpc_port))
        reserved.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
    except OSError:
        reserved.close()
        raise
    return reserved


def _allow_many_connections() -> None:
    """Raise the limit of open files to what this user may have; each connection is one."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    with suppress(ValueError, OSError):
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
