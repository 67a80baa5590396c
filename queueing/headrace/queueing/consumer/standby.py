"""The parent's side of the process that renews leases while this one is too busy to: see `standby_process`."""

from __future__ import annotations

import fcntl
import json
import os
import signal
import sys
import threading
import time
from contextlib import suppress
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import redis
from redis.credentials import CredentialProvider
from redis.sentinel import SentinelConnectionPool

from headrace.queueing.logs import logger

if TYPE_CHECKING:
    from collections.abc import Sequence

    from headrace.queueing.connection.connect import Command

_SCRIPT: Final = Path(__file__).with_name("standby_process.py")

#: How long the end of the process is awaited before it is killed; it ends within milliseconds unless it hangs.
END_S: Final = 0.2

#: A process that ended so soon after its start would end again.
STILLBORN_S: Final = 5.0

#: What ends a whole group of processes, Ctrl-C for one. This one ends with its parent, which may need it meanwhile.
_BLOCKED_SIGNALS: Final = ("SIGINT", "SIGTERM", "SIGHUP", "SIGQUIT", "SIGTSTP", "SIGUSR1", "SIGUSR2")

#: Options of a connection that say where the server is and who we are; others shape how redis-py works.
_OPTIONS: Final = frozenset({"host", "port", "path", "db", "username", "password", "client_name"})


class Standby:
    """One process for all leases of this one; it starts with the first and ends with the last."""

    def __init__(self) -> None:
        """Starts nothing yet."""
        self._reset()

    def _reset(self) -> None:
        self._lock = threading.Lock()
        self._leases: dict[str, bytes] = {}
        self._pid = 0
        self._pipe = -1
        self._unsent = b""
        self._started = 0.0
        self._useless = False

    @property
    def pid(self) -> int:
        """The process, or 0 when there is none."""
        return self._pid

    def take(self, consumer: str, every_s: float, described: bytes) -> None:
        """Keep a lease from now on, or keep it in another way. described: of `describe`."""
        line = b"take %s %g %s\n" % (consumer.encode(), every_s, described)
        with self._lock:
            if self._leases.get(consumer) == line:
                return
            self._leases[consumer] = line
            if self._pid:
                self._send(line)
            elif not self._useless:
                self._start()

    def beat(self, consumer: str, *, hold: bool = False) -> None:
        """Signal that this process renews by itself, or (hold) that nobody is to renew until the next beat."""
        with self._lock:
            if consumer in self._leases and self._pid:
                self._send(b"%s %s\n" % (b"hold" if hold else b"beat", consumer.encode()))

    def drop(self, consumer: str) -> None:
        """Keep a lease no more; the process ends with the last."""
        with self._lock:
            if self._leases.pop(consumer, None) is None or not self._pid:
                return
            if self._leases:
                self._send(b"drop %s\n" % consumer.encode())
            else:
                self._send(b"quit\n")
                self._end()

    def _start(self) -> None:
        self._unsent = b""
        try:
            self._pid, self._pipe = _spawn()
        except OSError as exc:
            self._give_up(str(exc))
            return
        self._started = time.monotonic()
        for line in self._leases.values():
            self._send(line)

    def _send(self, line: bytes) -> None:
        """Send a line, now or with the next: the pipe may be full, and nobody waits here."""
        self._unsent += line
        try:
            self._unsent = self._unsent[os.write(self._pipe, self._unsent) :]
        except BlockingIOError:
            pass
        except BrokenPipeError:
            self._restart()

    def _restart(self) -> None:
        age_s = time.monotonic() - self._started
        self._end()
        if age_s < STILLBORN_S:
            self._give_up(f"it ended after {age_s:.1f} s")
        else:
            logger.warning("queueing.standby_lost age_s=%.0f", age_s)
            self._start()

    def _give_up(self, reason: str) -> None:
        self._useless = True
        logger.warning("queueing.no_standby reason=%s", reason)

    def _end(self) -> None:
        pid, pipe, self._pid, self._pipe = self._pid, self._pipe, 0, -1
        os.close(pipe)
        give_up = time.monotonic() + END_S
        with suppress(ChildProcessError):  # others may wait for all children of this process
            while os.waitpid(pid, os.WNOHANG) == (0, 0):
                if time.monotonic() > give_up:
                    os.kill(pid, signal.SIGKILL)  # not waited for yet, so the number is still its own
                    os.waitpid(pid, 0)
                    return
                time.sleep(0.001)

    def forget(self) -> None:
        """Let go of the parent's process, in a forked child."""
        if self._pid:
            os.close(self._pipe)
        self._reset()


def _spawn() -> tuple[int, int]:
    """Start the process; return its number and the pipe to it. Raises OSError where that can't be done."""
    if not hasattr(os, "posix_spawn") or getattr(sys, "frozen", False) or not sys.executable or not _SCRIPT.is_file():
        raise OSError("there is no interpreter or no script to start")
    theirs, ours = os.pipe()
    try:
        if theirs < 3:  # this process has closed its standard streams
            low, theirs = theirs, fcntl.fcntl(theirs, fcntl.F_DUPFD_CLOEXEC, 3)
            os.close(low)
        os.set_blocking(ours, False)
        pid = os.posix_spawn(
            sys.executable,
            [sys.executable, "-I", "-S", "-B", str(_SCRIPT), str(os.getpid())],
            os.environ,
            file_actions=[
                (os.POSIX_SPAWN_DUP2, theirs, 0),
                (os.POSIX_SPAWN_OPEN, 1, os.devnull, os.O_WRONLY, 0),
            ],
            setsigmask=[getattr(signal, name) for name in _BLOCKED_SIGNALS],
        )
    except BaseException:
        os.close(ours)
        raise
    finally:
        os.close(theirs)
    return pid, ours


def describe(pool: redis.ConnectionPool, commands: Sequence[Command]) -> bytes:
    """Return how to reach a server, as `standby_process` reads it, and what to run there.

    Where Sentinels watch the server the process asks them itself. If it can't, as they need TLS, it follows the choice
    that this process knows with every beat; there is nothing to describe before the first. Raises TypeError for options
    that only this process has, such as an SSL context.
    """
    options: dict[str, Any] = dict(pool.connection_kwargs)
    kind = pool.connection_class
    tls = issubclass(kind, redis.SSLConnection)
    chosen = {name: value for name, value in options.items() if name in _OPTIONS or (tls and name.startswith("ssl_"))}
    sentinels = _describe_sentinels(pool) if isinstance(pool, SentinelConnectionPool) else None
    if isinstance(pool, SentinelConnectionPool) and sentinels is None:
        if pool.master_address is None:
            return b""
        chosen["host"], chosen["port"] = pool.master_address
    provider = options.get("credential_provider")
    if isinstance(provider, CredentialProvider):
        chosen["username"], chosen["password"] = ("", *provider.get_credentials())[-2:]
    described = {
        "path": sys.path,
        "unix": issubclass(kind, redis.UnixDomainSocketConnection),
        "tls": tls,
        "options": {name: value for name, value in chosen.items() if value is not None or name.startswith("ssl_")},
        "commands": commands,
        "sentinels": sentinels,
    }
    return json.dumps(described).encode()


def _describe_sentinels(pool: SentinelConnectionPool) -> dict[str, Any] | None:
    """Return who knows the master, or None where they are asked in another way than by plain TCP."""
    theirs = [each.connection_pool for each in pool.sentinel_manager.sentinels]
    if any(each.connection_class is not redis.Connection for each in theirs):
        return None
    options = theirs[0].connection_kwargs
    return {
        "name": pool.service_name,
        "addresses": sorted((each.connection_kwargs["host"], each.connection_kwargs["port"]) for each in theirs),
        "options": {name: options[name] for name in ("username", "password") if options.get(name)},
    }


@cache
def shared() -> Standby:
    """Return the standby of this process; a forked child has one of its own."""
    standby = Standby()
    os.register_at_fork(after_in_child=standby.forget)
    return standby
