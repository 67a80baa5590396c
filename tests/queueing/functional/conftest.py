"""Connections of the transport as an app opens them, and servers that Sentinels watch."""

from __future__ import annotations

import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import Any

import kombu
import pytest
import redis

from headrace.cli.stack.binaries import find_valkey
from headrace.queueing import headrace_url

#: Longest wait for something that should happen at once.
PATIENCE_S = 30.0


def wait_for(condition: Callable[[], object], what: str) -> None:
    deadline = time.monotonic() + PATIENCE_S
    while not condition():
        assert time.monotonic() < deadline, f"waited in vain for {what}"
        time.sleep(0.02)


@pytest.fixture(params=["", "shop:"], ids=["plain", "prefixed"])
def prefix(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def connection(broker_url: str, prefix: str) -> Iterator[kombu.Connection]:
    """A connection of an app, without a key prefix and with one."""
    options = {"global_keyprefix": prefix} if prefix else {}
    with kombu.Connection(headrace_url(broker_url), transport_options=options) as connection:
        yield connection


@pytest.fixture
def client(broker_url: str) -> Iterator[redis.Redis]:
    with redis.Redis.from_url(broker_url) as client:
        yield client


class Reader:
    """Takes from queues what comes."""

    def __init__(self, connection: kombu.Connection, *queues: kombu.Queue, settle: str = "ack") -> None:
        """settle: the method of a message that ends it; "" leaves it open."""
        self.messages: list[Any] = []
        self._connection = connection
        self._settle = settle
        self._consumer = connection.Consumer(list(queues), callbacks=[self._receive], accept=["json", "text/plain"])

    def _receive(self, body: Any, message: Any) -> None:
        self.messages.append(message)
        if self._settle:
            getattr(message, self._settle)()

    def read(self, count: int) -> list[Any]:
        """Take this many messages and no more, and return their bodies; fails when fewer come."""
        self.messages.clear()
        with self._consumer:
            while len(self.messages) < count:
                self._connection.drain_events(timeout=PATIENCE_S)
            self._expect_silence()
        return [message.payload for message in self.messages]

    def _expect_silence(self) -> None:
        before = len(self.messages)
        with suppress(TimeoutError):
            self._connection.drain_events(timeout=0.3)
        assert len(self.messages) == before, f"too many: {[message.payload for message in self.messages]}"

    def listen(self) -> None:
        """Subscribe, where messages are broadcast and not kept."""
        self._consumer.consume()
        with suppress(TimeoutError):
            while True:
                self._connection.drain_events(timeout=0.3)


@pytest.fixture
def read(connection: kombu.Connection) -> Callable[..., list[Any]]:
    """`read(3, queue, …)` takes three messages of queues, acknowledges them and returns their bodies."""
    return lambda count, *queues, settle="ack": Reader(connection, *queues, settle=settle).read(count)


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
        wait_for(lambda: self._ask(self.replica).info("replication")["master_link_status"] == "up", "the replica")
        self.sentinels = [self._sentinel(), self._sentinel()]
        wait_for(lambda: all(self._is_ready(port) for port in self.sentinels), "the Sentinels to know each other")

    def _ask(self, port: int) -> redis.Redis:
        return self._undo.enter_context(redis.Redis(port=port, decode_responses=True))

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
        wait_for(lambda: self._answers(port), f"the server at port {port}")
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
            wait_for(lambda: not master.info("replication")["connected_slaves"], "the replica to be gone")

    def _await_failover(self) -> None:
        wait_for(lambda: self._ask(self.replica).info("replication")["role"] == "master", "the failover")
        wait_for(lambda: all(self._master_of(port) == self.replica for port in self.sentinels), "the Sentinels")

    def url(self, scheme: str) -> str:
        return ";".join(f"{scheme}://127.0.0.1:{port}/0" for port in self.sentinels)

    def close(self) -> None:
        self._undo.close()


@pytest.fixture
def watched() -> Iterator[Watched]:
    """Servers of this test alone, which Sentinels watch."""
    with tempfile.TemporaryDirectory(prefix="headrace-sentinel-") as folder:
        servers = Watched(Path(folder))
        try:
            yield servers
        finally:
            servers.close()
