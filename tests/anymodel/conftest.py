"""A worker with real servers, whose model directory a test fills."""

from __future__ import annotations

from pathlib import Path

import pytest
from pydantic import SecretStr
from tests.workers.conftest import StartWorker, running_worker

from headrace.contracts import Settings
from headrace.results_store import migrate


@pytest.fixture
def settings(broker_url: str, database_url: str, tmp_path: Path) -> Settings:
    migrate(database_url)
    return Settings(
        broker_url=SecretStr(broker_url),
        database_url=SecretStr(database_url),
        models=tmp_path / "models",
        home=tmp_path / "home",
    )


@pytest.fixture
def start_worker(settings: Settings, tmp_path: Path) -> StartWorker:
    """`with start_worker():` runs a worker; its log is `worker.log` in tmp_path."""
    return lambda **environment: running_worker(settings, tmp_path / "worker.log", **environment)
