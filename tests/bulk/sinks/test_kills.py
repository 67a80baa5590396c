"""Attempts that are killed anywhere leave nothing half-written, and the next one ends the work once."""

from __future__ import annotations

import random
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from threading import Barrier, Thread

import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet as pq
import pytest
from tests.bulk.sinks import attempt as attempts
from tests.bulk.sinks.attempt import attempt

from headrace.bulk.sinks.base import PartFormat
from headrace.bulk.sinks.output.folder import listed
from headrace.bulk.sinks.output.publication import PublishedPart
from headrace.bulk.storage.base import Storage
from headrace.bulk.storage.opening import open_storage
from headrace.bulk.storage.roots import Roots

PARTS = 6
ROWS = 20_000


@pytest.fixture(params=["local", "s3"])
def folder(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    root = str(tmp_path) if request.param == "local" else request.getfixturevalue("s3_bucket")
    return f"{root}/out"


@pytest.fixture
def storage(folder: str) -> Storage:
    return open_storage(folder, Roots([folder.removesuffix("/out")]))


@pytest.fixture
def scratch(tmp_path: Path) -> Path:
    path = tmp_path / "scratch"
    path.mkdir()
    return path


@contextmanager
def running(folder: str, scratch: Path, kind: str, parts: int, rows: int) -> Iterator[subprocess.Popen[str]]:
    """Yield an attempt that is ready to begin, and kill it at the end."""
    command = [sys.executable, attempts.__file__, folder, str(scratch), kind, str(parts), str(rows)]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    try:
        assert process.stdout
        assert process.stdout.readline() == "ready\n"
        yield process
    finally:
        process.kill()
        process.communicate()


def rows_of(storage: Storage, folder: str, kind: PartFormat) -> list[tuple[int, int, float]]:
    """Return the rows of all parts; each must be whole."""
    found = []
    for name, info in listed(storage, folder):
        assert name.startswith("part-")
        with storage.open(info.uri) as file:
            source = pa.BufferReader(file.read())
        table = pq.read_table(source) if kind == "parquet" else pa.csv.read_csv(source)
        assert table.num_rows == ROWS
        found += list(zip(*(table.column(name).to_pylist() for name in ("file", "row", "score")), strict=True))
    return found


@pytest.mark.parametrize("kind", ["parquet", "csv"])
def test_an_attempt_that_is_killed_anywhere_is_ended_by_the_next(
    storage: Storage, folder: str, scratch: Path, kind: PartFormat
) -> None:
    chance = random.Random(12)
    published = 0
    for _ in range(4):
        with running(folder, scratch, kind, PARTS, ROWS):
            time.sleep(chance.random() * 0.15)
        published = len(list(listed(storage, folder)))
        rows_of(storage, folder, kind)
    last = [attempt(storage, folder, scratch, kind, shard, ROWS) for shard in range(PARTS)]
    assert sum(part.adopted for part in last) == published
    assert rows_of(storage, folder, kind) == [(shard, row, row / 7) for shard in range(PARTS) for row in range(ROWS)]


def test_an_attempt_that_is_killed_while_it_writes_publishes_nothing(
    storage: Storage, folder: str, scratch: Path
) -> None:
    with running(folder, scratch, "parquet", 1, 200_000_000):
        while not list(scratch.iterdir()):
            time.sleep(0.01)
    assert list(listed(storage, folder)) == []
    assert [path.name for path in scratch.iterdir()] == ["part.unfinished"]
    assert attempt(storage, folder, scratch, "parquet", 0, ROWS).adopted is False
    assert list(scratch.iterdir()) == []


@pytest.mark.parametrize("kind", ["parquet", "csv"])
def test_a_part_whose_attempt_was_killed_before_it_said_so_is_adopted(
    storage: Storage, folder: str, scratch: Path, kind: PartFormat
) -> None:
    with running(folder, scratch, kind, 1, 3000) as process:
        assert process.stdout
        name = process.stdout.readline().strip()
    adopted = attempt(storage, folder, scratch, kind, 0, ROWS)
    assert (adopted.name, adopted.adopted, adopted.identity.rows) == (name, True, 3000)
    assert adopted.etag == storage.stat(f"{folder}/{name}").etag


@pytest.mark.parametrize("kind", ["parquet", "csv"])
def test_of_attempts_that_publish_at_once_one_is_first_and_the_others_adopt(
    storage: Storage, folder: str, tmp_path: Path, kind: PartFormat
) -> None:
    together = Barrier(4)
    done: list[PublishedPart] = []

    def run(number: int) -> None:
        scratch = tmp_path / f"scratch-{number}"
        scratch.mkdir()
        together.wait()
        done.append(attempt(storage, folder, scratch, kind, 0, 100 + number))

    threads = [Thread(target=run, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert [part.adopted for part in done].count(False) == 1
    assert len({(part.etag, part.identity.rows) for part in done}) == 1
