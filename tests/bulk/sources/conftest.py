"""A local storage, and files of any content as a job's input."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from tests.bulk.sources.local_files import LocalFiles

from headrace.results_store.jobs.records import InputFile


@pytest.fixture
def storage() -> LocalFiles:
    return LocalFiles()


@pytest.fixture
def add(tmp_path: Path) -> Callable[[str, bytes], InputFile]:
    """Write a file below the test's folder, and describe it as the ledger does."""
    numbers = iter(range(10_000))

    def write(name: str, content: bytes, input_format: str = "") -> InputFile:
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
        return InputFile(file_no=next(numbers), uri=str(path), format=input_format, size=len(content))

    return write
