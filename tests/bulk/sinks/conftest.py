"""A storage and a job with an output folder in it."""

from __future__ import annotations

from pathlib import Path

import pytest
from tests.bulk.sinks.finished_job import FinishedJob

from headrace.bulk.storage.base import Storage
from headrace.bulk.storage.local.files import LocalStorage
from headrace.bulk.storage.roots import Roots


@pytest.fixture
def storage(tmp_path: Path) -> Storage:
    return LocalStorage(Roots([str(tmp_path)]))


@pytest.fixture
def out(tmp_path: Path) -> str:
    return str(tmp_path / "out")


@pytest.fixture
def job(storage: Storage, out: str, tmp_path: Path) -> FinishedJob:
    (tmp_path / "scratch").mkdir()
    return FinishedJob(storage, out, tmp_path / "scratch")
