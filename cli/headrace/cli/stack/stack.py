"""The local stack: Valkey, Postgres, a worker and Flower under one folder, started and stopped together."""

from __future__ import annotations

import fcntl
import http.client
import os
import queue
import signal
import sys
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from types import TracebackType
from typing import IO, Final, Self

import msgspec

from headrace.cli.process.child import Child
from headrace.cli.process.single_instance import single_instance
from headrace.cli.stack.flower import DEFAULT_PORT, flower_command, flower_environment, flower_url
from headrace.cli.stack.ports import LOOPBACK, free_port
from headrace.cli.stack.servers import Postgres, Valkey
from headrace.cli.terminal.errors import StackError
from headrace.contracts.package.manifest import ModelDirectory
from headrace.contracts.settings import STACK_FILE, Settings, StackAddress

DATABASE: Final = "headrace"

#: Loading a large model takes time before a worker answers.
_WORKER_READY_S: Final = 300.0
_FLOWER_READY_S: Final = 60.0

#: One question to the workers waits this long for their answers.
_PING_S: Final = 0.5

#: What a worker needs beyond its grace to put back what it holds.
_WORKER_MARGIN_S: Final = 15.0
_FLOWER_STOP_S: Final = 5.0

#: A signal that comes just before a wait without end begins is only handled when that wait ends, so none is endless.
_SIGNAL_LOOK_S: Final = 1.0


class StackOptions(msgspec.Struct, frozen=True, kw_only=True):
    """Parts that run besides the servers. processes: of the worker, 0 for none. flower_port: None for no Flower."""

    processes: int = 1
    flower_port: int | None = DEFAULT_PORT


class PartState(msgspec.Struct, frozen=True, kw_only=True):
    """One part of the stack, for people and programs."""

    name: str
    state: str
    pid: int
    log: str


class LocalStack:
    """The stack of one home. Use it as a context manager, in the main thread; then `wait`.

    After `start`, `address` says where everything listens, and clients find it through the home's `stack.json`: the
    file is locked for as long as the stack lives, so that what a crashed stack left behind is never believed.
    """

    def __init__(
        self,
        home: Path,
        models: Path,
        options: StackOptions | None = None,
        report: Callable[[str], None] = lambda _line: None,
    ) -> None:
        """home: folder for data and logs, made if missing. models: the model directory. report: takes progress."""
        self.home = home.absolute()
        self.models = models.absolute()
        self.options = options or StackOptions()
        self.report = report
        logs = self.home / "logs"
        self.valkey = Valkey(self.home / "valkey", log=logs / "valkey.log")
        self.postgres = Postgres(self.home / "postgres", log=logs / "postgres.log")
        self.worker = Child("the worker", logs / "worker.log")
        self.flower = Child("Flower", logs / "flower.log")
        self._ended: queue.SimpleQueue[Child] = queue.SimpleQueue()
        self._undo = ExitStack()
        self._address: StackAddress | None = None

    @property
    def address(self) -> StackAddress:
        """Addresses of the stack. Raises StackError when it does not run."""
        if self._address is None:
            raise StackError(f"the local stack in {self.home} does not run; start it with `headrace up`")
        return self._address

    def start(self) -> StackAddress:
        """Start everything and return when all of it answers. Raises StackError; then nothing is left running."""
        try:
            self._start_servers()
            self._start_worker()
            self._start_flower()
            self._await_worker()
            self._await_flower()
        except BaseException:
            self.stop()
            raise
        return self.address

    def _start_servers(self) -> None:
        from headrace.results_store import migrate

        advice = "use it as it is, stop it with Ctrl-C in its terminal, or give another HEADRACE_HOME"
        self._undo.enter_context(
            single_instance(self.home, StackError, running="a local stack already runs", advice=advice)
        )
        for server, name in ((self.valkey, "Valkey"), (self.postgres, "Postgres")):
            self.report(f"starting {name}")
            self._undo.callback(server.stop)
            server.start(self._ended.put)
        self.postgres.create_database(DATABASE)
        database_url = self.postgres.url_of(DATABASE)
        self.report("migrating the results store")
        migrate(database_url)
        port = self.options.flower_port
        self._publish(
            StackAddress(
                broker_url=self.valkey.url,
                database_url=database_url,
                pid=os.getpid(),
                models=str(self.models),
                flower_url="" if port is None else flower_url(free_port(port)),
            )
        )

    def _publish(self, address: StackAddress) -> None:
        """Write `stack.json` for clients, and keep it locked; whoever finds it unlocked knows that it is stale."""
        path = self.home / STACK_FILE
        fresh = path.with_name(STACK_FILE + ".new")
        fresh.unlink(missing_ok=True)
        file: IO[bytes] = open(fresh, "xb", opener=lambda name, flags: os.open(name, flags, 0o600))  # noqa: SIM115
        self._undo.callback(file.close)
        fcntl.flock(file, fcntl.LOCK_EX)
        file.write(msgspec.json.encode(address))
        file.flush()
        fresh.rename(path)
        self._undo.callback(path.unlink, missing_ok=True)
        self._address = address

    def environment(self) -> dict[str, str]:
        """The environment in which a process uses this stack, whatever else is set outside."""
        return {
            **os.environ,
            "HEADRACE_BROKER_URL": self.address.broker_url,
            "HEADRACE_DATABASE_URL": self.address.database_url,
            "HEADRACE_HOME": str(self.home),
            "HEADRACE_MODELS": str(self.models),
        }

    def _start_worker(self) -> None:
        count = self.options.processes
        if not count:
            return
        if not ModelDirectory(self.models).names():
            self.report(f"no worker yet: there is no model in {self.models}; add one with `headrace models add FILE`")
            self.report("and run it with `headrace worker`, or stop this stack and start it again")
            return
        self.report(f"starting a worker with {count} process{'es' if count > 1 else ''}")
        grace_s = Settings().grace_s + _WORKER_MARGIN_S
        self._undo.callback(self.worker.stop, grace_s)
        command = [sys.executable, "-m", "headrace.cli", "worker", "--processes", str(count)]
        self.worker.spawn(command, env=self.environment())
        self.worker.when_ended(self._ended.put)

    def _await_worker(self) -> None:
        if self.worker.started:
            self.worker.wait_until(self._worker_answers, _WORKER_READY_S)

    def _worker_answers(self) -> bool:
        """Ask over the broker, as `celery inspect ping` does: every process must answer."""
        from headrace.queueing.admin.control import ask_workers

        count = self.options.processes
        return (
            len(ask_workers(self.address.broker_url, Settings().key_prefix, "ping", timeout_s=_PING_S, limit=count))
            >= count
        )

    def _start_flower(self) -> None:
        if self.options.flower_port is None:
            return
        port = self._flower_port
        if port != self.options.flower_port:
            self.report(f"port {self.options.flower_port} is taken; Flower gets port {port}")
        self.report("starting Flower")
        self._undo.callback(self.flower.stop, _FLOWER_STOP_S)
        env = flower_environment(self.address.broker_url, port, self.environment())
        self.flower.spawn(flower_command(), env=env)
        self.flower.when_ended(self._ended.put)

    @property
    def _flower_port(self) -> int:
        return int(self.address.flower_url.rpartition(":")[2])

    def _await_flower(self) -> None:
        if self.options.flower_port is not None:
            self.flower.wait_until(self._flower_answers, _FLOWER_READY_S)

    def _flower_answers(self) -> bool:
        connection = http.client.HTTPConnection(LOOPBACK, self._flower_port, timeout=5)
        try:
            connection.request("GET", "/healthcheck")
            return connection.getresponse().status == http.HTTPStatus.OK
        except (OSError, http.client.HTTPException):
            return False
        finally:
            connection.close()

    def parts(self) -> list[PartState]:
        """Return the state of each part that was started."""
        children = [self.valkey.child, self.postgres.child, self.worker, self.flower]
        return [
            PartState(
                name=child.name,
                state="running" if child.running else f"ended ({child.returncode})",
                pid=child.pid,
                log=str(child.log),
            )
            for child in children
            if child.started
        ]

    def wait(self) -> None:
        """Wait for ever. Raises StackError, with the end of its log, when a part other than Flower ends by itself."""
        while True:
            self.check(_SIGNAL_LOOK_S)

    def check(self, wait_s: float = 0.0) -> None:
        """Look whether a part has ended, for up to `wait_s`. Raises StackError if one other than Flower has."""
        try:
            child = self._ended.get(timeout=wait_s) if wait_s else self._ended.get_nowait()
        except queue.Empty:
            return
        if child is not self.flower:
            raise child.exit_error()
        # Results do not depend on the dashboard.
        self.report(f"{child.exit_error().message}; the rest goes on, and `headrace flower` starts it again")

    def stop(self) -> None:
        """Stop everything in reverse order, the worker before what it needs; does nothing if nothing runs.

        Another Ctrl-C meanwhile kills the part that is being waited for, so that a worker's grace can be cut short.
        """
        try:
            self._undo.close()
        finally:
            self._address = None

    def __enter__(self) -> Self:
        """Start everything."""
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Stop everything."""
        self.stop()


def stop_signals_interrupt() -> None:
    """Let SIGTERM and SIGHUP raise KeyboardInterrupt, as Ctrl-C does, so that every way of stopping is the same."""
    for number in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.default_int_handler)
