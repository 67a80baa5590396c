"""A real pgbouncer before a Postgres of the tests; what it is not told is its default."""

from __future__ import annotations

import os
import shutil
import signal
import uuid
from pathlib import Path
from urllib.parse import urlsplit

import psycopg

from headrace.cli.stack.accounts import account_for
from headrace.cli.stack.ports import LOOPBACK, free_port
from headrace.cli.stack.servers import READY_S, Server

#: Debian installs it where only root's PATH leads.
_PATH = f"{os.environ.get('PATH', os.defpath)}:/usr/sbin:/usr/local/sbin"


class PgBouncer(Server):
    """A pgbouncer with one pool of connections to a Postgres that listens on a socket."""

    def __init__(self, postgres_url: str, **settings: object) -> None:
        """postgres_url: of any database of that server. settings: lines of its file, such as pool_mode."""
        parts = urlsplit(postgres_url)
        self.user = parts.username
        self.socket_folder = Path(parts.query.removeprefix("host="))
        # Beside that of Postgres, whose parents are open to who runs both.
        super().__init__(
            "pgbouncer", self.socket_folder.with_name(f"pgbouncer-{uuid.uuid4().hex}"), None, signal.SIGINT
        )
        self.settings = settings
        self.port = 0

    def url_of(self, postgres_url: str) -> str:
        """The URL of the same database through this pooler."""
        return f"postgresql://{self.user}@{LOOPBACK}:{self.port}{urlsplit(postgres_url).path}"

    def _start(self) -> None:
        binary = shutil.which("pgbouncer", path=_PATH)
        assert binary, "these tests need pgbouncer: run deploy/ensure_pgbouncer.sh, or install it by other means"
        # It refuses root as Postgres does, and only who runs Postgres may enter the folder of its socket.
        account = account_for(self.socket_folder)
        self.folder.mkdir(parents=True, exist_ok=True)
        self.port = self.port or free_port()
        users, file = self.folder / "users.txt", self.folder / "pgbouncer.ini"
        users.write_text(f'"{self.user}" ""\n')
        lines = {"listen_addr": LOOPBACK, "listen_port": self.port, "unix_socket_dir": "", "auth_type": "trust"}
        lines |= {"auth_file": users} | self.settings
        file.write_text(
            f"[databases]\n* = host={self.socket_folder}\n[pgbouncer]\n"
            + "".join(f"{name} = {value}\n" for name, value in lines.items())
        )
        for path in (self.folder, users, file):
            if account is not None:
                os.chown(path, *account)
        self.child.spawn([binary, file], account=account)
        self.child.wait_until(self._answers, READY_S)

    def stop(self) -> None:
        """Stop it and remove what it wrote."""
        super().stop()
        shutil.rmtree(self.folder, ignore_errors=True)

    def _answers(self) -> bool:
        try:
            with psycopg.connect(self.url_of("postgresql:///postgres"), connect_timeout=5):
                return True
        except psycopg.OperationalError:
            return False
