"""Files of any content, below the folder of the test, as a job's input."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from headrace.bulk.storage.base import Storage
from headrace.bulk.storage.opening import open_storage
from headrace.bulk.storage.roots import Roots
from headrace.results_store.jobs.records import InputFile


@pytest.fixture
def storage(tmp_path: Path) -> Storage:
    return open_storage(str(tmp_path), Roots([str(tmp_path)]))


@pytest.fixture
def add(tmp_path: Path, storage: Storage) -> Callable[[str, bytes], InputFile]:
    """Write a file below the test's folder, and describe it as the ledger does."""
    numbers = iter(range(10_000))

    def write(name: str, content: bytes, input_format: str = "") -> InputFile:
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
        info = storage.stat(str(path))
        return InputFile(file_no=next(numbers), uri=info.uri, format=input_format, size=info.size, etag=info.etag)

    return write
