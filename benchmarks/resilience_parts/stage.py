"""What every part needs: servers, a proxy before each for workers and one for clients, models, and processes."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import psutil
from benchmarks.online_parts.processes import end
from benchmarks.online_parts.servers import Servers, started
from benchmarks.resilience_parts.sleepy import write_entry_point, write_model
from tests.chaos.wire.proxy import Proxy, ProxyLoop, tcp, unix

from headrace.results_store import migrate

ROOT = Path(__file__).resolve().parents[2]

#: Models of all parts: `fast`; `slow`, whose batches of up to 4 rows take 5 s; and `large`, with outputs of 1 MB.
FAST, SLOW, LARGE = "fast", "slow", "large"
SLOW_S, SLOW_ROWS = 5.0, 4
LARGE_NUMBERS = 250_000

GRACE_S = 5.0

#: A worker that isn't ready by then never will be.
READY_S = 60.0


@dataclass
class Wires:
    """The way of one kind of process to both servers."""

    valkey: Proxy
    postgres: Proxy
    valkey_port: int
    postgres_url: str

    def environment(self) -> dict[str, str]:
        return {
            "HEADRACE_BROKER_URL": f"redis://127.0.0.1:{self.valkey.port}/1",
            "HEADRACE_DATABASE_URL": self.postgres_url,
        }


class Stage:
    """Everything that runs. of_workers, of_clients: their ways to the servers."""

    def __init__(self, servers: Servers, of_workers: Wires, of_clients: Wires) -> None:
        self.servers, self.of_workers, self.of_clients = servers, of_workers, of_clients
        self.folder = servers.folder
        self.models = self.folder / "models"
        self._path = write_entry_point(self.folder / "entry-points")
        write_model(self.models, FAST)
        write_model(self.models, SLOW, run_s=SLOW_S, max_rows=SLOW_ROWS)
        write_model(self.models, LARGE, numbers=LARGE_NUMBERS, max_rows=8)

    def environment(self, wires: Wires) -> dict[str, str]:
        """The environment of a process that reaches the servers by these wires."""
        kept = {name: value for name, value in os.environ.items() if not name.startswith(("HEADRACE_", "CELERY_"))}
        return {
            **kept,
            "PYTHONPATH": os.pathsep.join([str(self._path), str(ROOT)]),
            "HEADRACE_MODELS": str(self.models),
            "HEADRACE_HOME": str(self.folder / "home"),
            "HEADRACE_GRACE_S": str(GRACE_S),
            **wires.environment(),
        }

    @contextlib.contextmanager
    def process(self, command: Sequence[str], env: dict[str, str]) -> Iterator[subprocess.Popen[bytes]]:
        """Run a command of Python; kill it and its children at the end."""
        with (self.folder / "processes.log").open("ab") as log:
            process = subprocess.Popen(
                [sys.executable, *command], env=env, cwd=ROOT, stdin=subprocess.DEVNULL, stdout=log, stderr=log
            )
        try:
            yield process
        finally:
            end(process)

    @contextlib.contextmanager
    def worker(self, *options: str, processes: int = 1, **more: str) -> Iterator[subprocess.Popen[bytes]]:
        """Run `headrace worker`."""
        command = ["-m", "headrace.cli", "worker", "--processes", str(processes), *options]
        with self.process(command, {**self.environment(self.of_workers), **more}) as process:
            yield process


@contextlib.contextmanager
def staged() -> Iterator[Stage]:
    """Start it all."""
    with started() as servers, ProxyLoop() as loop, contextlib.ExitStack() as undo:
        migrate(servers.database_url)
        host, port = servers.valkey_address.split(":")
        socket = servers.database_url.partition("host=")[2].replace("%2F", "/") + "/.s.PGSQL.5432"
        user = servers.database_url.partition("//")[2].partition("@")[0]

        def wires() -> Wires:
            valkey, postgres = Proxy(loop, tcp(host, int(port))), Proxy(loop, unix(socket))
            for proxy in (valkey, postgres):
                proxy.start()
                undo.callback(proxy.stop)
            return Wires(valkey, postgres, int(port), f"postgresql://{user}@127.0.0.1:{postgres.port}/bench")

        yield Stage(servers, wires(), wires())


def seconds_until_gone(process: subprocess.Popen[bytes], patience_s: float) -> float | None:
    """Send SIGTERM; return how long it took to end, with all that it had started, or None when it does not."""
    began = time.monotonic()
    tree = [psutil.Process(process.pid), *psutil.Process(process.pid).children(recursive=True)]
    process.send_signal(signal.SIGTERM)
    ends_at = began + patience_s
    while time.monotonic() < ends_at:
        process.poll()
        if not any(_alive(each) for each in tree):
            return time.monotonic() - began
        time.sleep(0.05)
    return None


def _alive(process: psutil.Process) -> bool:
    try:
        return process.is_running() and process.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False
