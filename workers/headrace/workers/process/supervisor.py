"""`headrace worker`: checks what a worker needs, starts its processes, and restarts those that die."""

from __future__ import annotations

import logging
import os
import signal
import subprocess
import sys
import threading
import time
from dataclasses import dataclass, field
from typing import Final

from headrace.contracts import BrokerUnavailable, ConfigurationError, ModelDirectory, Settings
from headrace.contracts.process import end_with_parent, signal_pipe
from headrace.contracts.settings import variables_of
from headrace.queueing import check_writes, connect_to, translate_errors
from headrace.results_store import check_schema

logger = logging.getLogger(__name__)

#: A process that dies is started again after this time, doubled each time it dies young.
RESTART_S: Final = 1.0
MAX_RESTART_S: Final = 30.0

#: A process that lived this long was well: its next restart is quick again.
HEALTHY_S: Final = 60.0

#: A first start that fails within this time is a mistake in the set-up, not an accident: the supervisor gives up.
FIRST_START_S: Final = 5.0

#: Tells a worker process who started it; it ends when that process is gone.
SUPERVISOR_VARIABLE: Final = "HEADRACE_SUPERVISOR_PID"

#: How a process ends that was told to: by itself, at once, or while it was still starting.
_STOPPED: Final = (0, -signal.SIGQUIT, -signal.SIGTERM)

#: Message of a keeper thread to the main thread, beside numbers of signals.
_KEEPER_ENDED: Final = 0


@dataclass
class Supervisor:
    """Keeps `processes` worker processes running until it is told to stop."""

    settings: Settings
    processes: int
    name: str
    log_level: str = "INFO"
    _stop: threading.Event = field(default_factory=threading.Event)
    _children: dict[int, subprocess.Popen[bytes]] = field(default_factory=dict)
    _exit_code: int = 0
    _interrupts: int = 0

    def run(self) -> int:
        """Run until SIGTERM or SIGINT, and return the exit code. The main thread must call this."""
        with signal_pipe(signal.SIGTERM, signal.SIGINT) as (news, tell):
            threads = [
                threading.Thread(target=self._keep, args=(index, tell), name=f"headrace-keeper-{index}")
                for index in range(1, self.processes + 1)
            ]
            try:
                for thread in threads:
                    thread.start()
                running = len(threads)
                while running:
                    (number,) = os.read(news, 1)
                    if number == _KEEPER_ENDED:
                        running -= 1
                    else:
                        self._pass_on(number)
            finally:
                for thread in threads:
                    thread.join()
        return self._exit_code

    def _pass_on(self, number: int) -> None:
        """Pass a signal on: the first ends a worker after its batch, a second SIGINT ends it at once."""
        self._stop.set()
        self._interrupts += number == signal.SIGINT
        self._signal_children(signal.SIGQUIT if self._interrupts > 1 else signal.SIGTERM)

    def _signal_children(self, number: int) -> None:
        for child in list(self._children.values()):
            if child.poll() is None:
                child.send_signal(number)

    def _keep(self, index: int, tell: int) -> None:
        """Run one process again and again; report the end to the main thread."""
        try:
            self._restart_until_stopped(index)
        finally:
            os.write(tell, bytes([_KEEPER_ENDED]))

    def _restart_until_stopped(self, index: int) -> None:
        delay_s, first = RESTART_S, True
        while not self._stop.is_set():
            started = time.monotonic()
            child = self._children[index] = self._spawn(index)
            if self._stop.is_set():
                # The signal came between the check and the start, so the child did not get it.
                child.send_signal(signal.SIGTERM)
            code = child.wait()
            lived_s = time.monotonic() - started
            if self._stop.is_set():
                self._exit_code = self._exit_code or int(code not in _STOPPED)
                return
            if first and lived_s < FIRST_START_S and code > 0 and self._broker_works():
                self._exit_code = code
                self._stop.set()
                self._signal_children(signal.SIGTERM)
                return
            first = False
            delay_s = RESTART_S if lived_s >= HEALTHY_S else min(MAX_RESTART_S, delay_s * 2)
            logger.error("worker process %d died with code %d; restarting in %.0f s", index, code, delay_s)
            self._stop.wait(delay_s)

    def _broker_works(self) -> bool:
        """Return whether the broker takes writes; one that doesn't is no mistake in the set-up."""
        try:
            with translate_errors(), connect_to(self.settings) as client:
                check_writes(client)
        except BrokerUnavailable as exc:
            logger.warning("broker away: %s", exc.message)
            return False
        return True

    def _spawn(self, index: int) -> subprocess.Popen[bytes]:
        node = self.name if self.processes == 1 else f"{self.name}-{index}"
        command = [sys.executable, "-m", "celery", "--quiet", "-A", "headrace.workers.app", "worker"]
        command += ["--hostname", f"{node}@%h", "--loglevel", self.log_level, "--pool", "solo", "--without-gossip"]
        # A group of its own, so that Ctrl-C in a terminal reaches the supervisor alone, which passes it on once.
        return subprocess.Popen(command, env=environment(self.settings), process_group=0)


def environment(settings: Settings) -> dict[str, str]:
    """Return the environment of a worker process: this one's, and the settings in force."""
    return {**os.environ, **variables_of(settings), SUPERVISOR_VARIABLE: str(os.getpid())}


def run_workers(settings: Settings, *, processes: int = 1, name: str = "headrace", log_level: str = "INFO") -> int:
    """Check the set-up, then run worker processes until SIGTERM or SIGINT; return the exit code.

    Raises HeadraceError when a worker could not work: no model, no broker, no database, an old schema.
    """
    if processes < 1:
        raise ConfigurationError(f"--processes must be at least 1, not {processes}")
    if not ModelDirectory(settings.models).names():
        raise ConfigurationError(
            f"there is no model in {settings.models.absolute()}; add one with `headrace models add FILE`, or name "
            f"another folder with --models"
        )
    with translate_errors(), connect_to(settings) as client:
        client.ping()
    check_schema(settings.require_database_url())
    return Supervisor(settings, processes, name, log_level).run()


def end_with_supervisor() -> None:
    """In a worker process: ask the kernel for SIGTERM when the supervisor dies, even if it was killed. Linux only."""
    supervisor = os.environ.get(SUPERVISOR_VARIABLE)
    if supervisor is None or not sys.platform.startswith("linux"):
        return
    if not end_with_parent(int(supervisor), signal.SIGTERM):
        os.kill(os.getpid(), signal.SIGTERM)
