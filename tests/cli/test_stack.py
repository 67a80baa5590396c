"""The local stack in this process: its addresses, its lock, and what happens when a part dies."""

from __future__ import annotations

import json
import os
import stat
from contextlib import AbstractContextManager
from pathlib import Path

import psutil
import psycopg
import pytest

from headrace.cli.process.single_instance import single_instance
from headrace.cli.stack.stack import LocalStack, StackOptions
from headrace.cli.terminal.errors import StackError
from headrace.contracts.settings import STACK_FILE, load_settings, read_stack

SERVERS_ONLY = StackOptions(processes=0, flower_port=None)


def held(home: Path) -> AbstractContextManager[None]:
    return single_instance(home, StackError, running="a test already runs", advice="wait for it")


def assert_free(home: Path) -> None:
    with held(home):
        pass


def test_clients_find_a_running_stack_and_forget_a_stopped_one(shared_home: Path) -> None:
    with LocalStack(shared_home / ".headrace", shared_home / "models", SERVERS_ONLY) as stack:
        settings = load_settings()
        assert settings.require_broker_url() == stack.address.broker_url
        assert settings.models == shared_home / "models"
        with psycopg.connect(settings.require_database_url()) as connection:
            assert connection.execute("SELECT count(*) FROM predictions").fetchone() == (0,)
        file = shared_home / ".headrace" / STACK_FILE
        assert stat.S_IMODE(file.stat().st_mode) == 0o600
        assert json.loads(file.read_text())["pid"] == os.getpid()
        assert [part.state for part in stack.parts()] == ["running", "running"]
        pids = [part.pid for part in stack.parts()]
    assert not file.exists()
    assert read_stack(shared_home / ".headrace") is None
    assert not any(map(psutil.pid_exists, pids))


def test_a_second_stack_in_the_same_home_names_the_first(shared_home: Path) -> None:
    with (
        held(shared_home / ".headrace"),
        pytest.raises(StackError, match=f"already runs in .* \\(pid {os.getpid()}\\)"),
    ):
        LocalStack(shared_home / ".headrace", shared_home / "models", SERVERS_ONLY).start()
    assert_free(shared_home / ".headrace")


def test_addresses_that_a_crashed_stack_left_behind_are_not_believed(shared_home: Path) -> None:
    with LocalStack(shared_home / ".headrace", shared_home / "models", SERVERS_ONLY):
        content = (shared_home / ".headrace" / STACK_FILE).read_bytes()
    (shared_home / ".headrace" / STACK_FILE).write_bytes(content)
    assert read_stack(shared_home / ".headrace") is None
    with LocalStack(shared_home / ".headrace", shared_home / "models", SERVERS_ONLY) as stack:
        assert read_stack(shared_home / ".headrace") == stack.address


def test_a_server_that_dies_ends_the_wait_and_is_named(shared_home: Path) -> None:
    with LocalStack(shared_home / ".headrace", shared_home / "models", SERVERS_ONLY) as stack:
        stack.postgres.kill()
        with pytest.raises(
            StackError, match=r"Postgres is gone: it ended by SIGKILL; its log is .*postgres\.log"
        ) as caught:
            stack.wait()
        assert "ready to accept connections" in caught.value.log_lines


def test_without_a_model_there_is_no_worker_but_a_hint(shared_home: Path) -> None:
    lines: list[str] = []
    with LocalStack(
        shared_home / ".headrace", shared_home / "models", StackOptions(flower_port=None), lines.append
    ) as stack:
        assert [part.name for part in stack.parts()] == ["Valkey", "Postgres"]
    assert any("headrace models add" in line for line in lines)


def test_a_start_that_fails_leaves_nothing_behind(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    stack = LocalStack(home / ".headrace", home / "models", SERVERS_ONLY)
    monkeypatch.setattr("headrace.cli.stack.servers.find_postgres", lambda: Path("/nonexistent"))
    with pytest.raises(StackError, match="initdb could not make the database files"):
        stack.start()
    assert not stack.valkey.running
    assert read_stack(stack.home) is None
    assert_free(stack.home)
