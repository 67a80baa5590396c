"""`headrace gateway`: checks what a gateway needs, and runs its processes on one port."""

from __future__ import annotations

import logging
import os
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

from headrace.contracts.errors import ConfigurationError
from headrace.contracts.process import end_with_parent, signal_pipe
from headrace.contracts.settings import Settings, load_settings, variables_of
from headrace.gateway.serving.server import address_of, listen, reserve, serve
from headrace.queueing import connect_to, translate_errors

#: A process that died is started again after this time.
_RESTART_S: Final = 1.0

#: Beyond the grace of the gateway, before a process that does not end is killed.
_MARGIN_S: Final = 5.0

#: Names the parent and the socket to a process of several.
_PARENT: Final = "HEADRACE_GATEWAY_PARENT"

_log: Final = logging.getLogger(__name__)


def check(settings: Settings) -> None:
    """Raise HeadraceError when a gateway could not work: no broker, no database, an old schema."""
    from headrace.results_store import check_schema

    with translate_errors(), connect_to(settings) as client:
        client.ping()
    check_schema(settings.require_database_url())


def open_port(settings: Settings) -> socket.socket:
    """Return a listening socket. Raises ConfigurationError."""
    try:
        return listen(settings)
    except OSError as exc:
        where = f"{settings.gateway_host}:{settings.gateway_port}"
        raise ConfigurationError(
            f"the gateway can't listen on {where}: {exc.strerror or exc}; choose another --port or --host"
        ) from None


@contextmanager
def rpc_port(settings: Settings) -> Iterator[Settings]:
    """Keep the port for gRPC, and yield the settings with its number, which is another one for 0.

    Raises ConfigurationError.
    """
    if not settings.gateway_grpc:
        yield settings
        return
    try:
        reserved = reserve(settings)
    except OSError as exc:
        where = f"{settings.gateway_host}:{settings.gateway_grpc_port}"
        raise ConfigurationError(
            f"the gateway can't listen on {where} for gRPC: {exc.strerror or exc}; choose another --grpc-port, or "
            "--no-grpc"
        ) from None
    with reserved:
        yield settings.model_copy(update={"gateway_grpc_port": reserved.getsockname()[1]})


def url_of(listening: socket.socket) -> str:
    """Return the address of a listening socket as clients write it."""
    port = listening.getsockname()[1]
    return f"http://{address_of(listening, port)}"


def run_gateway(settings: Settings, listening: socket.socket) -> int:
    """Run the processes of a gateway until SIGTERM or SIGINT; return the exit code. The main thread must call this."""
    if settings.gateway_processes == 1:
        serve(settings, listening)
        return 0
    return _Processes(settings, listening).run()


class _Processes:
    """Several processes that accept connections from one socket; those that die are started again."""

    def __init__(self, settings: Settings, listening: socket.socket) -> None:
        self._settings = settings
        self._listening = listening
        self._stop = threading.Event()

    def run(self) -> int:
        threads = [
            threading.Thread(target=self._keep, name=f"headrace-gateway-{index}")
            for index in range(self._settings.gateway_processes)
        ]
        try:
            with signal_pipe(signal.SIGTERM, signal.SIGINT) as (arrived, _):
                for thread in threads:
                    thread.start()
                os.read(arrived, 1)
        finally:
            self._stop.set()
            for thread in threads:
                thread.join()
            self._listening.close()
        return 0

    def _keep(self) -> None:
        while not self._stop.is_set():
            child = self._spawn()
            while child.poll() is None and not self._stop.wait(0.1):
                pass
            if self._stop.is_set():
                _end(child, self._settings.gateway_grace_s + _MARGIN_S)
                return
            _log.error("gateway process died with code %d; restarting in %g s", child.returncode, _RESTART_S)
            self._stop.wait(_RESTART_S)

    def _spawn(self) -> subprocess.Popen[bytes]:
        descriptor = self._listening.fileno()
        variables = variables_of(self._settings) | {_PARENT: f"{os.getpid()}:{descriptor}"}
        # A group of its own, so that Ctrl-C in a terminal reaches the parent alone, which passes it on once.
        return subprocess.Popen(
            [sys.executable, "-m", __name__], env=os.environ | variables, pass_fds=[descriptor], process_group=0
        )


def _end(child: subprocess.Popen[bytes], within_s: float) -> None:
    child.terminate()
    try:
        child.wait(within_s)
    except subprocess.TimeoutExpired:
        child.kill()
        child.wait()


def _run_as_child() -> None:
    parent, _, descriptor = os.environ[_PARENT].partition(":")
    if end_with_parent(int(parent), signal.SIGTERM):
        serve(load_settings(), socket.socket(fileno=int(descriptor)))


if __name__ == "__main__":
    _run_as_child()
