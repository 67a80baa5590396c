"""The servers of the local stack: real ones, crashed for real."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import psutil
import psycopg
import pytest
import redis

from headrace.cli.stack.binaries import find_postgres, find_valkey
from headrace.cli.stack.servers import Postgres, Valkey
from headrace.cli.terminal.errors import MissingExtra, StackError


@pytest.fixture
def folder() -> Iterator[Path]:
    with tempfile.TemporaryDirectory(prefix="headrace test ") as name:
        yield Path(name)


@contextlib.contextmanager
def client_of(server: Valkey) -> Iterator[redis.Redis]:
    with redis.Redis.from_url(server.url) as client:
        yield client


def test_valkey_answers_on_loopback_only_and_never_evicts(folder: Path) -> None:
    with Valkey(folder / "v") as server, client_of(server) as client:
        config = client.config_get("*")
        assert (config["bind"], config["maxmemory-policy"], config["appendonly"]) == ("127.0.0.1", "noeviction", "yes")
        addresses = {item.laddr.ip for item in psutil.Process(server.pid).net_connections() if item.status == "LISTEN"}
        assert addresses == {"127.0.0.1"}
    assert not psutil.pid_exists(server.pid)


def test_valkey_keeps_its_data_and_its_address_over_a_restart(folder: Path) -> None:
    with Valkey(folder / "v") as server, client_of(server) as client:
        client.set("key", "value")
    again = Valkey(folder / "v")
    with again, client_of(again) as client:
        assert client.get("key") == b"value"
    assert again.url == server.url


def test_valkey_takes_another_port_when_its_own_is_taken(folder: Path) -> None:
    server = Valkey(folder / "v")
    with server:
        before = server.port
    with socket.socket() as squatter:
        squatter.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        squatter.bind(("127.0.0.1", before))
        squatter.listen()
        with server, client_of(server) as client:
            assert client.ping()
            assert server.port != before


def test_valkey_recovers_from_a_journal_whose_tail_was_cut_off(folder: Path) -> None:
    with Valkey(folder / "v") as server, client_of(server) as client:
        client.set("first", "1")
        client.config_set("appendfsync", "always")
        client.set("second", "2")
        server.kill()
    (journal,) = (folder / "v" / "appendonlydir").glob("*.incr.aof")
    journal.write_bytes(journal.read_bytes()[:-5])
    with server, client_of(server) as client:
        assert (client.get("first"), client.get("second")) == (b"1", None)


def test_a_valkey_that_cannot_start_shows_the_end_of_its_log(folder: Path) -> None:
    with Valkey(folder / "v") as server, client_of(server) as client:
        client.set("key", "value")
    (journal,) = (folder / "v" / "appendonlydir").glob("*.incr.aof")
    journal.write_bytes(b"garbage\r\n" + journal.read_bytes())
    with pytest.raises(StackError, match="Valkey did not start") as caught:
        server.start()
    assert "Bad file format" in caught.value.log_lines
    assert not server.running


@pytest.fixture(scope="module")
def postgres() -> Iterator[Postgres]:
    """One cluster that the tests of this module start and stop."""
    with tempfile.TemporaryDirectory(prefix="headrace test ") as name:
        server = Postgres(Path(name) / "p")
        yield server
        server.stop()


def test_postgres_keeps_what_was_committed_over_a_kill(postgres: Postgres) -> None:
    postgres.start()
    postgres.create_database("häuser")
    postgres.create_database("häuser")
    with psycopg.connect(postgres.url_of("häuser")) as connection:
        connection.execute("CREATE TABLE kept (x int)")
        connection.execute("INSERT INTO kept VALUES (42)")
    postgres.kill()
    with postgres, psycopg.connect(postgres.url_of("häuser")) as connection:
        assert connection.execute("SELECT x FROM kept").fetchone() == (42,)


def test_postgres_listens_on_no_network_and_admits_only_its_user(postgres: Postgres) -> None:
    with postgres:
        assert [item for item in psutil.Process(postgres.pid).net_connections("inet") if item.status == "LISTEN"] == []
        assert (postgres.folder / ".s.PGSQL.5432").stat().st_mode & 0o077 == 0
        assert postgres.folder.stat().st_mode & 0o077 == 0


def test_a_lock_file_that_names_an_unrelated_process_does_not_stop_postgres(postgres: Postgres) -> None:
    with postgres:
        owner = postgres.data.stat()
        content = (postgres.data / "postmaster.pid").read_text().splitlines()
    lock = postgres.data / "postmaster.pid"
    lock.write_text("\n".join([str(os.getpid()), *content[1:]]) + "\n")
    os.chown(lock, owner.st_uid, owner.st_gid)
    with postgres:
        assert postgres.running


def test_data_of_another_postgres_version_are_refused_with_both_numbers(postgres: Postgres) -> None:
    with postgres:
        pass
    version = postgres.data / "PG_VERSION"
    kept = version.read_text()
    version.write_text("14\n")
    try:
        with pytest.raises(StackError, match=r"belong to Postgres 14, but .* is 18"):
            postgres.start()
    finally:
        version.write_text(kept)


def test_a_start_that_is_interrupted_halfway_is_begun_anew(folder: Path) -> None:
    (folder / "p" / "data.new" / "base").mkdir(parents=True)
    (folder / "p" / "data").mkdir()
    with Postgres(folder / "p") as server, psycopg.connect(server.url) as connection:
        assert connection.execute("SELECT 1").fetchone() == (1,)


@pytest.mark.parametrize("name", ["x" * 100, 'a,"b'])
def test_a_path_that_no_socket_can_have_is_no_obstacle(folder: Path, name: str) -> None:
    server = Postgres(folder / name)
    socket_folder = Path(server.url.partition("host=")[2])
    with server, psycopg.connect(server.url) as connection:
        assert connection.execute("SELECT 1").fetchone() == (1,)
        assert socket_folder.stat().st_mode & 0o077 == 0
    assert not socket_folder.exists()


def test_a_folder_whose_server_runs_is_left_alone(folder: Path) -> None:
    command = [sys.executable, "-c", PARENT, str(folder)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as parent:
        assert parent.stdout is not None
        pids = parent.stdout.readline().split()
        for server, pid in zip((Valkey(folder / "v"), Postgres(folder / "p")), pids, strict=True):
            with pytest.raises(StackError, match=f"runs already .pid {pid}., started by process {parent.pid}"):
                server.start()
            assert psutil.pid_exists(int(pid))
        parent.communicate()


#: Starts both servers, says their process ids, and waits to be killed.
PARENT = """
import sys
from pathlib import Path
from headrace.cli.stack.servers import Postgres, Valkey
folder = Path(sys.argv[1])
valkey, postgres = Valkey(folder / "v"), Postgres(folder / "p")
valkey.start()
postgres.start()
print(valkey.pid, postgres.pid, flush=True)
sys.stdin.read()
"""


def test_servers_end_with_a_parent_that_was_killed_and_start_again_with_their_data(folder: Path) -> None:
    command = [sys.executable, "-c", PARENT, str(folder)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as parent:
        assert parent.stdout is not None
        pids = [int(pid) for pid in parent.stdout.readline().split()]
        processes = [psutil.Process(pid) for pid in pids]
        parent.send_signal(signal.SIGKILL)
        # Not waited for: a start right after the kill must cope with servers that are still ending.
        valkey, postgres = Valkey(folder / "v"), Postgres(folder / "p")
        with valkey, postgres, client_of(valkey) as client, psycopg.connect(postgres.url) as connection:
            assert client.ping()
            assert connection.execute("SELECT 1").fetchone() == (1,)
            assert not any(process.is_running() for process in processes)


def test_missing_servers_name_the_extra_that_brings_them(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "/nonexistent")
    monkeypatch.setattr("headrace.cli.stack.binaries.find_spec", lambda name: None)
    with pytest.raises(MissingExtra, match=r"headrace\[local\].*HEADRACE_BROKER_URL"):
        find_valkey()
    with pytest.raises(MissingExtra, match=r"headrace\[local\].*HEADRACE_DATABASE_URL"):
        find_postgres()


def test_a_server_on_path_that_is_too_old_is_passed_over(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name, line in (("redis-server", "Redis server v=5.0.7 sha=0"), ("postgres", "postgres (PostgreSQL) 11.2")):
        (tmp_path / name).write_text(f"#!/bin/sh\necho '{line}'\n")
        (tmp_path / name).chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path))
    assert find_valkey().parent != tmp_path
    monkeypatch.setattr("headrace.cli.stack.binaries.find_spec", lambda name: None)
    with pytest.raises(MissingExtra):
        find_postgres()
