"""A child process that ends when we do; its output goes to a log, its end is an event."""

from __future__ import annotations

import contextlib
import os
import queue
import signal
import subprocess
import sys
import threading
import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Final

from headrace.cli.terminal.errors import StackError

_PDEATHSIG_EXEC: Final = Path(__file__).with_name("pdeathsig_exec.py")

#: How long a process may take to die of SIGKILL; only one stuck in the kernel needs longer.
KILL_S: Final = 10.0

#: How often a starting server is asked whether it answers yet; servers start in some 50 ms, and a question costs 1 ms.
_READY_POLL_S: Final = 0.01

#: How much of the end of a log is read for its last lines.
_TAIL_BYTES: Final = 16 << 10


class Child:
    """A process that ends with us: by its stop signal or, should we be killed, by the kernel.

    A thread of its own starts it and waits for its end, since Linux ties it to the thread that starts it. It gets a
    session of its own, so that Ctrl-C in a terminal reaches only us and everything stops in order.
    """

    def __init__(self, name: str, log: Path, stop_signal: signal.Signals = signal.SIGTERM) -> None:
        """name: for messages. log: file for its output; the one of the last run is kept beside it as `.old`."""
        self.name = name
        self.log = log
        self.stop_signal = stop_signal
        self.exited = threading.Event()
        self._process: subprocess.Popen[bytes] | None = None

    def spawn(
        self,
        command: Sequence[str | Path],
        *,
        env: Mapping[str, str] | None = None,
        account: tuple[int, int] | None = None,
    ) -> None:
        """Start the command. account: user and group to run as (needs root)."""
        self._process = None
        self.exited.clear()
        self.log.parent.mkdir(parents=True, exist_ok=True)
        if self.log.exists():
            self.log.replace(self.log.with_name(self.log.name + ".old"))
        who = "-" if account is None else f"{account[0]}:{account[1]}"
        wrapper: list[str | Path] = [_PDEATHSIG_EXEC, str(os.getpid()), str(int(self.stop_signal)), who]
        whole: list[str | Path] = [sys.executable, "-I", "-S", *wrapper, *command]
        begun: queue.SimpleQueue[OSError | None] = queue.SimpleQueue()

        def run() -> None:
            self._run(whole, None if env is None else dict(env), "/" if account else None, begun)

        # Ctrl-C interrupts the main thread alone: over there nothing comes between the process and the note of its pid.
        try:
            threading.Thread(target=run, name=f"{self.name}-exit", daemon=True).start()
            failure = begun.get()
        except BaseException:
            self._undo_spawn(begun)
            raise
        if failure is not None:
            raise failure

    def _run(
        self,
        command: Sequence[str | Path],
        env: dict[str, str] | None,
        folder: str | None,
        begun: queue.SimpleQueue[OSError | None],
    ) -> None:
        """Start the process, say in `begun` how that went, and wait for its end."""
        try:
            with self.log.open("wb") as output:
                self._process = subprocess.Popen(
                    command,
                    stdin=subprocess.DEVNULL,
                    stdout=output,
                    stderr=subprocess.STDOUT,
                    env=env,
                    start_new_session=True,
                    cwd=folder,
                )
        except OSError as exc:
            begun.put(exc)
            return
        begun.put(None)
        self._process.wait()
        self.exited.set()

    def _undo_spawn(self, begun: queue.SimpleQueue[OSError | None]) -> None:
        """Kill a process whose start was interrupted, if there is to be one."""
        with contextlib.suppress(queue.Empty):
            if not self.running:
                begun.get(timeout=KILL_S)
        if self.running:
            self.kill()

    def when_ended(self, callback: Callable[[Child], None]) -> None:
        """Call back, in a thread, when this process ends or if it has ended already."""

        def wait() -> None:
            self.exited.wait()
            callback(self)

        threading.Thread(target=wait, name=f"{self.name}-ended", daemon=True).start()

    @property
    def started(self) -> bool:
        """Whether the process was ever started."""
        return self._process is not None

    @property
    def pid(self) -> int:
        """The process id. Raises StackError before the first start."""
        if self._process is None:
            raise StackError(f"{self.name} was not started")
        return self._process.pid

    @property
    def running(self) -> bool:
        """Whether the process was started and has not ended."""
        return self._process is not None and not self.exited.is_set()

    @property
    def returncode(self) -> int | None:
        """The exit code, negative for a signal; None while it runs."""
        return None if self._process is None else self._process.returncode

    def wait_until(self, ready: Callable[[], bool], timeout_s: float) -> None:
        """Ask `ready` until it is true. Raises StackError when the process ends first or the time is over."""
        deadline = time.monotonic() + timeout_s
        while time.monotonic() < deadline:
            if ready():
                return
            if self.exited.wait(_READY_POLL_S):
                raise self.exit_error("did not start")
        raise StackError(
            f"{self.name} gave no answer within {timeout_s:.0f} s; its log is {self.log}", log_lines=self.last_lines()
        )

    def stop(self, grace_s: float = 30.0) -> None:
        """Stop the process: its stop signal, SIGKILL after `grace_s` or at Ctrl-C; does nothing if it ended."""
        if not self.running:
            return
        self._signal(self.stop_signal)
        try:
            ended = self.exited.wait(grace_s)
        except KeyboardInterrupt:
            self.kill()
            raise
        if not ended:
            self.kill()

    def kill(self) -> None:
        """Kill the process and its process group, and wait for its end."""
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.pid, signal.SIGKILL)
        if not self.exited.wait(KILL_S):
            raise StackError(f"{self.name} (pid {self.pid}) does not end, not even by SIGKILL")

    def _signal(self, number: signal.Signals) -> None:
        with contextlib.suppress(ProcessLookupError):
            os.kill(self.pid, number)

    def last_lines(self, count: int = 8) -> str:
        """Return the last lines of the log, indented; empty when there is none."""
        try:
            with self.log.open("rb") as file:
                file.seek(max(0, self.log.stat().st_size - _TAIL_BYTES))
                lines = deque(file.read().decode("utf-8", "replace").splitlines(), maxlen=count)
        except OSError:
            return ""
        return "\n".join(f"  {line}" for line in lines if line.strip())

    def exit_error(self, what: str = "is gone") -> StackError:
        """Return the error that names how the process ended, with the last lines of its log."""
        code = self.returncode
        how = f"by {signal.Signals(-code).name}" if code is not None and code < 0 else f"with exit code {code}"
        return StackError(f"{self.name} {what}: it ended {how}; its log is {self.log}", log_lines=self.last_lines())
