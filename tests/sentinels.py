"""A master and a replica that Sentinels watch, for tests of failovers."""

from __future__ import annotations

import signal
import socket
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import Any

import redis
from tests.eventually import eventually

from headrace.cli.stack.binaries import find_valkey

#: Far more than servers need to start, and Sentinels to agree, on a busy machine.
STARTS_S = 30.0


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


class Watched:
    """A master and a replica, and two Sentinels that watch them under the name `shop`."""

    NAME = "shop"

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._undo = ExitStack()
        self.processes: dict[int, subprocess.Popen[bytes]] = {}
        self.master, self.replica = self._server(), self._server()
        self._ask(self.replica).execute_command("REPLICAOF", "127.0.0.1", self.master)  # type: ignore[no-untyped-call]
        eventually(lambda: self._replication()["master_link_status"] == "up", STARTS_S, "the replica")
        self.sentinels = [self._sentinel(), self._sentinel()]
        eventually(lambda: all(map(self._is_ready, self.sentinels)), STARTS_S, "the Sentinels to know each other")

    def _ask(self, port: int) -> redis.Redis:
        client: redis.Redis = self._undo.enter_context(redis.Redis(port=port, decode_responses=True))
        return client

    def _replication(self) -> dict[str, Any]:
        found: dict[str, Any] = self._ask(self.replica).info("replication")
        return found

    def _server(self) -> int:
        port = _free_port()
        folder = self._folder / str(port)
        folder.mkdir()
        options = ("--bind", "127.0.0.1", "--save", "", "--dir", str(folder), "--repl-diskless-sync-delay", "0")
        return self._start(port, "--port", str(port), *options)

    def _sentinel(self) -> int:
        port = _free_port()
        config = self._folder / f"{port}.conf"
        config.write_text(
            f"port {port}\nbind 127.0.0.1\ndir {self._folder}\n"
            f"sentinel monitor {self.NAME} 127.0.0.1 {self.master} 2\n"
            f"sentinel down-after-milliseconds {self.NAME} 1000\n"
            f"sentinel failover-timeout {self.NAME} 10000\n"
        )
        return self._start(port, str(config), "--sentinel")

    def _start(self, port: int, *arguments: str) -> int:
        log = self._undo.enter_context((self._folder / f"{port}.log").open("wb"))
        self.processes[port] = subprocess.Popen([find_valkey(), *arguments], stdout=log, stderr=log)
        self._undo.callback(self._stop, port)
        eventually(lambda: self._answers(port), STARTS_S, f"the server at port {port}")
        return port

    def _answers(self, port: int) -> bool:
        with suppress(redis.ConnectionError), redis.Redis(port=port) as client:
            return bool(client.ping())
        return False

    def _is_ready(self, port: int) -> bool:
        found: dict[str, Any] = self._ask(port).sentinel_master(self.NAME)  # type: ignore[assignment]
        return bool(found["num-slaves"] == 1 and found["num-other-sentinels"] == 1)

    def _master_of(self, sentinel: int) -> int:
        found: dict[str, Any] = self._ask(sentinel).sentinel_master(self.NAME)  # type: ignore[assignment]
        return 0 if found["is_odown"] or found["is_sdown"] else int(found["port"])

    def _stop(self, port: int) -> None:
        self.processes[port].kill()
        self.processes[port].wait()

    def kill_master(self) -> None:
        """Kill the master; returns when the replica has taken its place and the Sentinels say so."""
        self._stop(self.master)
        self._await_failover()

    def freeze_master(self) -> None:
        """Stop the master, whose connections stay as they are; returns when the replica has taken its place."""
        self.processes[self.master].send_signal(signal.SIGSTOP)
        self._await_failover()

    def cut_replication(self) -> None:
        """Let the replica know of nothing that is written from now on."""
        with redis.Redis(port=self.master) as master:
            master.acl_setuser("default", enabled=True, nopass=True, commands=["-psync", "-sync"], reset=False)
            master.client_kill_filter(_type="replica")
            eventually(lambda: not master.info("replication")["connected_slaves"], STARTS_S, "the replica to be gone")

    def _await_failover(self) -> None:
        eventually(lambda: self._replication()["role"] == "master", STARTS_S, "the failover")
        eventually(lambda: {*map(self._master_of, self.sentinels)} == {self.replica}, STARTS_S, "the Sentinels")

    def url(self, scheme: str) -> str:
        return ";".join(f"{scheme}://127.0.0.1:{port}/0" for port in self.sentinels)

    def close(self) -> None:
        self._undo.close()


@contextmanager
def watched_servers() -> Iterator[Watched]:
    """Servers that Sentinels watch, in a folder of their own."""
    with tempfile.TemporaryDirectory(prefix="headrace-sentinel-") as folder:
        servers = Watched(Path(folder))
        try:
            yield servers
        finally:
            servers.close()
