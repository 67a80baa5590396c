"""A model server in a process of its own, whatever it is."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import urllib.request
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from tests.eventually import eventually

#: TensorFlow and Java take their time where two cores are shared with much else.
START_S: Final = 300

#: Variables of headrace's own environment that the programs of another one would trip over.
_OURS: Final = ("PYTHONPATH", "PYTHONHOME", "VIRTUAL_ENV", "PYTEST", "COVERAGE")


def free_port() -> int:
    """Return a loopback port that nobody listens on."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return int(listener.getsockname()[1])


@dataclass
class ModelServer:
    """A server's command, where it listens, and whether all of its models are loaded."""

    name: str
    folder: Path
    command: list[str]
    addresses: dict[str, str]
    is_ready: Callable[[], bool]
    environment: Mapping[str, str] = field(default_factory=dict)
    process: subprocess.Popen[bytes] | None = None

    @property
    def log(self) -> str:
        """Return what the server printed."""
        path = self.folder / "server.log"
        return path.read_text(errors="replace") if path.exists() else ""

    def start(self) -> None:
        """Start the server without waiting for its models."""
        inherited = {name: value for name, value in os.environ.items() if not name.startswith(_OURS)}
        with (self.folder / "server.log").open("ab") as log:
            self.process = subprocess.Popen(
                self.command,
                cwd=self.folder,
                env={**inherited, **self.environment},
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )

    def wait_until_ready(self) -> None:
        """Wait until every model is loaded."""
        eventually(self._has_loaded, START_S, f"{self.name} to load its models")

    def _has_loaded(self) -> bool:
        assert self.process is not None
        assert self.process.poll() is None, f"{self.name} ended with {self.process.returncode}:\n{self.log[-4000:]}"
        return self.is_ready()

    def signal(self, number: signal.Signals) -> None:
        """Send a signal to the server and to the processes that it started, as to freeze and thaw it."""
        assert self.process is not None
        with suppress(ProcessLookupError):
            os.killpg(self.process.pid, number)

    def stop(self) -> None:
        """End the server and every process that it started, if it runs."""
        if self.process is None:
            return
        self.signal(signal.SIGTERM)
        with suppress(subprocess.TimeoutExpired):
            self.process.wait(timeout=10)
        self.kill()

    def kill(self) -> None:
        """End the server and every process that it started, at once and without a goodbye."""
        self.signal(signal.SIGKILL)
        assert self.process is not None
        self.process.wait()
        self.process = None


def get(url: str) -> bytes | None:
    """Return the body of a successful answer, None if there is none."""
    try:
        with urllib.request.urlopen(url, timeout=5) as response:
            return bytes(response.read())
    except OSError:
        return None


def post(url: str) -> None:
    """Post nothing, which several servers take as a command."""
    with urllib.request.urlopen(urllib.request.Request(url, data=b"", method="POST"), timeout=60) as response:
        response.read()


def all_answer(*urls: str) -> Callable[[], bool]:
    """Return a check whether a server has answered 200 at each of its URLs."""
    return lambda: all(get(url) is not None for url in urls)
