"""The fixtures for users: the example of docs/testing.md as it stands, and what they promise beside."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import psycopg
import pytest
import redis
from pydantic import SecretStr

import headrace.cli.demo
from headrace.cli.terminal.errors import StackError
from headrace.contracts import Settings, load_settings
from headrace.results_store import check_schema
from headrace.testing import BackgroundWorker, TemporaryStack

PAGE = Path(__file__).parents[2] / "docs" / "testing.md"
MODELS = Path(headrace.cli.demo.__file__).parent / "data" / "models"


def example(name: str) -> str:
    found = re.search(rf"```python\n(# {re.escape(name)}\n.*?)```", PAGE.read_text("utf-8"), re.DOTALL)
    assert found
    return found[1]


def run_pytest(folder: Path, *words: str) -> subprocess.CompletedProcess[str]:
    environment = {name: value for name, value in os.environ.items() if not name.startswith(("HEADRACE_", "PYTEST_"))}
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-W", "error", *words]
    return subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, check=False)


def test_the_example_of_the_page_passes(tmp_path: Path) -> None:
    for name in ("conftest.py", "test_digits.py"):
        (tmp_path / name).write_text(example(name), "utf-8")
    shutil.copytree(MODELS, tmp_path / "models")
    done = run_pytest(tmp_path, "-W", "ignore:XDG_RUNTIME_DIR:Warning")
    assert "2 passed" in done.stdout, done.stdout + done.stderr


def test_loading_the_plugin_starts_nothing(tmp_path: Path) -> None:
    (tmp_path / "conftest.py").write_text('pytest_plugins = ["headrace.testing"]\n')
    (tmp_path / "test_alone.py").write_text(
        "import sys\n\ndef test_alone() -> None:\n"
        "    assert not {'celery', 'psycopg', 'redis', 'sqlalchemy', 'onnxruntime'} & set(sys.modules)\n"
    )
    done = run_pytest(tmp_path)
    assert "1 passed" in done.stdout, done.stdout + done.stderr


def test_settings_are_those_of_the_environment_too(
    monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest
) -> None:
    monkeypatch.setenv("HEADRACE_LEASE_S", "7")
    settings: Settings = request.getfixturevalue("headrace_settings")
    assert load_settings() == settings
    assert settings.lease_s == Settings.model_fields["lease_s"].default
    check_schema(settings.require_database_url())


def test_tests_share_neither_keys_nor_rows(headrace_stack: TemporaryStack) -> None:
    with headrace_stack.key_space() as one, headrace_stack.key_space() as two, redis.Redis.from_url(one) as client:
        client.set("key", "value")
        with redis.Redis.from_url(two) as other:
            assert other.get("key") is None
    with headrace_stack.results_store() as one, headrace_stack.results_store() as two:
        assert one != two
        check_schema(two)
    with headrace_stack.database() as empty, psycopg.connect(empty) as connection:
        assert connection.execute("SELECT count(*) FROM pg_tables WHERE schemaname = 'public'").fetchone() == (0,)


def test_no_address_is_given_twice(headrace_stack: TemporaryStack) -> None:
    addresses = []
    for _ in range(200):
        with headrace_stack.key_space() as url:
            addresses.append(url)
    assert len(set(addresses)) == 200


def test_a_worker_without_models_names_the_folder(headrace_settings: Settings, tmp_path: Path) -> None:
    with pytest.raises(StackError, match=f"no model in {re.escape(str(headrace_settings.models))}"):
        BackgroundWorker(headrace_settings, tmp_path / "worker.log").start()


def test_a_worker_that_cannot_start_shows_its_log(
    headrace_stack: TemporaryStack, headrace_settings: Settings, tmp_path: Path
) -> None:
    with headrace_stack.database() as empty:
        settings = headrace_settings.model_copy(update={"database_url": SecretStr(empty), "models": MODELS})
        with pytest.raises(StackError, match="the worker did not start") as raised:
            BackgroundWorker(settings, tmp_path / "worker.log").start()
    assert "headrace store migrate" in raised.value.log_lines
