"""Real gRPC servers whose answers a test writes, and sockets that are no gRPC server at all."""

from __future__ import annotations

import socket
import threading
from collections.abc import Callable, Mapping
from concurrent import futures

import grpc

from headrace.runtimes.remote.base import Address

#: A serialized request → a serialized answer.
Answerer = Callable[[bytes, grpc.ServicerContext], bytes]


class ScriptedServer:
    """Answers calls by their paths. port: 0 for a free one. credentials: of a server that speaks TLS."""

    def __init__(
        self,
        answers: Mapping[str, Answerer],
        credentials: grpc.ServerCredentials | None = None,
        port: int = 0,
    ) -> None:
        self._server = grpc.server(
            futures.ThreadPoolExecutor(8),
            handlers=[_Handlers(answers)],
            options=[("grpc.so_reuseport", 0), ("grpc.max_receive_message_length", 4 << 20)],
        )
        place = f"127.0.0.1:{port}"
        if credentials is None:
            self.address = Address("grpc", "127.0.0.1", self._server.add_insecure_port(place))
        else:
            self.address = Address("grpcs", "127.0.0.1", self._server.add_secure_port(place, credentials))
        self._server.start()

    def stop(self) -> None:
        """Cut every call off and close the port."""
        self._server.stop(grace=None).wait()


class _Handlers(grpc.GenericRpcHandler):
    def __init__(self, answers: Mapping[str, Answerer]) -> None:
        self._answers = answers

    def service(self, handler_call_details: grpc.HandlerCallDetails) -> grpc.RpcMethodHandler[bytes, bytes] | None:
        answer = self._answers.get(handler_call_details.method)
        return grpc.unary_unary_rpc_method_handler(answer) if answer else None


class RawServer:
    """Sends some bytes to whoever connects; then hangs up, or stays silent."""

    def __init__(self, greeting: bytes, hang_up: bool) -> None:
        self._greeting = greeting
        self._hang_up = hang_up
        self._kept: list[socket.socket] = []
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.address = Address("grpc", "127.0.0.1", self._listener.getsockname()[1])
        self._thread = threading.Thread(target=self._serve)
        self._thread.start()

    def _serve(self) -> None:
        while True:
            try:
                client, _ = self._listener.accept()
            except OSError:
                return
            self._kept.append(client)
            if self._greeting:
                # An answer before the question would be of another protocol.
                client.recv(1)
                client.sendall(self._greeting)
            if self._hang_up:
                client.close()

    def stop(self) -> None:
        """Close every connection and the port."""
        self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        self._thread.join()
        for client in self._kept:
            client.close()
