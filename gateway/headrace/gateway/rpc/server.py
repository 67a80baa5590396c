"""gRPC's server: its port, its limits, its end."""

from __future__ import annotations

from typing import Final

import grpc

from headrace.contracts.errors import ConfigurationError
from headrace.gateway.inference.gateway import Gateway
from headrace.gateway.rpc.service import service_of

#: Clients may ping this often to keep an idle connection; gRPC's own five minutes are longer than many proxies wait.
_LEAST_PING_MS: Final = 10_000


class RpcServer:
    """The service on a port; belongs to the event loop of its gateway."""

    def __init__(self, gateway: Gateway, address: str) -> None:
        """gateway: the owner closes it. address: HOST:PORT, of numbers; servers of other processes may be there, too.

        Raises ConfigurationError.
        """
        self._server = grpc.aio.server(
            options=[
                ("grpc.max_receive_message_length", gateway.settings.gateway_body_bytes),
                ("grpc.max_send_message_length", -1),
                ("grpc.so_reuseport", 1),
                ("grpc.http2.min_recv_ping_interval_without_data_ms", _LEAST_PING_MS),
                ("grpc.keepalive_permit_without_calls", 1),
            ]
        )
        self._server.add_generic_rpc_handlers((service_of(gateway),))
        try:
            self._server.add_insecure_port(address)
        except RuntimeError as exc:
            raise ConfigurationError(f"the gateway can't listen on {address} for gRPC: {exc}") from None

    async def start(self) -> None:
        """Take calls."""
        await self._server.start()

    async def stop(self, grace_s: float) -> None:
        """Refuse new calls, and return when the others have ended; they have this time."""
        await self._server.stop(grace_s)
