"""The fixtures; docs/testing.md shows them at work."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from pydantic import SecretStr

from headrace.contracts.settings import Settings
from headrace.testing.stack import TemporaryStack
from headrace.testing.worker import BackgroundWorker, environment_of


@pytest.fixture(scope="session")
def headrace_stack() -> Iterator[TemporaryStack]:
    """A real Valkey and a real Postgres in a temporary folder, for the whole session; each starts when first needed."""
    # Not pytest's folder: the path of a socket is short, and Postgres runs as another user when pytest runs as root.
    with tempfile.TemporaryDirectory(prefix="headrace-test-") as folder, TemporaryStack(Path(folder)) as stack:
        yield stack


@pytest.fixture
def headrace_models(tmp_path: Path) -> Path:
    """The folder of models that `headrace_settings` names, empty at first; override it to serve one of your own."""
    folder = tmp_path / "models"
    folder.mkdir(exist_ok=True)
    return folder


@pytest.fixture
def headrace_settings(
    headrace_stack: TemporaryStack, headrace_models: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Settings]:
    """Settings with a key space and a migrated database that are this test's own.

    The environment says the same while the test runs, so that a `Client()` made without settings uses them.
    """
    for name in [name for name in os.environ if name.startswith("HEADRACE_")]:
        monkeypatch.delenv(name)
    with headrace_stack.key_space() as broker_url, headrace_stack.results_store() as database_url:
        settings = Settings(
            broker_url=SecretStr(broker_url),
            database_url=SecretStr(database_url),
            home=tmp_path / "headrace",
            models=headrace_models.absolute(),
        )
        for name, value in environment_of(settings).items():
            monkeypatch.setenv(name, value)
        yield settings


@pytest.fixture
def headrace_worker(headrace_settings: Settings) -> Iterator[BackgroundWorker]:
    """A worker that serves the models of `headrace_models` in the background and ends with the test."""
    with BackgroundWorker(headrace_settings, headrace_settings.home / "worker.log") as worker:
        yield worker
