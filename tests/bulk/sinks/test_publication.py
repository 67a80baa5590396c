"""Publication of parts: create-only, adopted when an earlier attempt was first."""

from __future__ import annotations

from pathlib import Path

import msgspec
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from headrace.bulk.sinks.base import OutputTaken, PartFormat
from headrace.bulk.sinks.formats.opening import open_part
from headrace.bulk.sinks.output.identity import PartIdentity
from headrace.bulk.sinks.output.names import part_name
from headrace.bulk.sinks.output.publication import publish_part
from headrace.bulk.storage.base import AlreadyExists, ObjectInfo, Storage, StorageUnavailable
from headrace.bulk.storage.local.files import LocalStorage
from headrace.bulk.storage.roots import Roots
from headrace.results_store.jobs.records import BadRow, Slice

MINE = PartIdentity(key="ab" * 32, job="job-1", shard=4, file_no=2, row_start=500, rows_ok=3, stop_file=2, stop_row=503)


def part(folder: Path, identity: PartIdentity, kind: PartFormat) -> Path:
    table = pa.RecordBatch.from_pydict({"score": [float(row) for row in range(identity.rows_ok)]})
    writer = open_part(kind, folder / f"scratch-{identity.rows_ok}", table.schema)
    writer.write(table)
    return writer.close(identity.metadata())


FORMATS: list[PartFormat] = ["parquet", "csv", "jsonl"]


@pytest.fixture(params=FORMATS)
def kind(request: pytest.FixtureRequest) -> PartFormat:
    chosen: PartFormat = request.param
    return chosen


def test_a_part_is_published_under_its_name_and_the_scratch_file_is_gone(
    tmp_path: Path, storage: Storage, out: str, kind: PartFormat
) -> None:
    name = part_name(Slice(file_no=2, row_start=500), kind)
    local = part(tmp_path, MINE, kind)
    size = local.stat().st_size
    published = publish_part(storage, local, out, name, MINE)
    assert (published.name, published.size_bytes, published.adopted, published.identity) == (name, size, False, MINE)
    assert published.etag == storage.stat(f"{out}/{name}").etag
    assert not local.exists()


@pytest.mark.parametrize("theirs", [3, 2, 5])
def test_what_an_earlier_attempt_published_is_adopted_with_its_own_rows(
    tmp_path: Path, storage: Storage, out: str, theirs: int, kind: PartFormat
) -> None:
    earlier = msgspec.structs.replace(MINE, rows_ok=theirs, stop_row=500 + theirs)
    first = publish_part(storage, part(tmp_path, earlier, kind), out, f"part.{kind}", earlier)
    adopted = publish_part(storage, part(tmp_path, MINE, kind), out, f"part.{kind}", MINE)
    assert adopted.adopted
    assert (adopted.etag, adopted.size_bytes, adopted.identity) == (first.etag, first.size_bytes, earlier)


def test_the_bad_rows_of_the_attempt_that_was_first_are_those_of_the_part(
    tmp_path: Path, storage: Storage, out: str, kind: PartFormat
) -> None:
    bad = [
        BadRow(file_no=2, row=row, stage="infer", type="InputRefused", message="NaN", input=bytes(range(256)))
        for row in (501, 503)
    ]
    earlier = msgspec.structs.replace(MINE, rows_ok=2, rows_bad=2, stop_row=504)
    first = publish_part(storage, part(tmp_path, earlier, kind), out, f"part.{kind}", earlier, bad)
    assert (first.bad, first.adopted) == (bad, False)
    adopted = publish_part(storage, part(tmp_path, MINE, kind), out, f"part.{kind}", MINE)
    assert (adopted.bad, adopted.identity, adopted.adopted) == (bad, earlier, True)


def test_a_part_of_another_job_is_refused_with_a_remedy(
    tmp_path: Path, storage: Storage, out: str, kind: PartFormat
) -> None:
    other = PartIdentity(key="cd" * 32, job="job-0", shard=4, file_no=2, row_start=500, rows_ok=2)
    publish_part(storage, part(tmp_path, other, kind), out, f"part.{kind}", other)
    local = part(tmp_path, MINE, kind)
    with pytest.raises(OutputTaken, match=f"part.{kind} is of job job-0; choose another output, or --restart"):
        publish_part(storage, local, out, f"part.{kind}", MINE)
    assert local.exists()


def test_a_file_of_somebody_else_is_refused(tmp_path: Path, storage: Storage, out: str, kind: PartFormat) -> None:
    storage.put(f"{out}/part.{kind}", b"score\n1\n")
    with pytest.raises(OutputTaken, match="no part of a headrace job"):
        publish_part(storage, part(tmp_path, MINE, kind), out, f"part.{kind}", MINE)
    assert Path(out, f"part.{kind}").read_bytes() == b"score\n1\n"


def test_a_part_that_is_gone_again_is_tried_again(tmp_path: Path, out: str) -> None:
    class Vanishing(LocalStorage):
        def publish(self, local: Path, uri: str) -> ObjectInfo:
            raise AlreadyExists

    with pytest.raises(StorageUnavailable, match="is gone"):
        publish_part(Vanishing(Roots([str(tmp_path)])), part(tmp_path, MINE, "parquet"), out, "part.parquet", MINE)


def test_a_footer_of_parquet_without_a_job_is_of_nobody(tmp_path: Path, storage: Storage, out: str) -> None:
    Path(out).mkdir()
    pq.write_table(pa.table({"x": [1]}), f"{out}/part.parquet")
    with pytest.raises(OutputTaken, match="no part of a headrace job"):
        publish_part(storage, part(tmp_path, MINE, "parquet"), out, "part.parquet", MINE)


def test_names_sort_in_the_order_of_the_input() -> None:
    slices = [(0, 0), (0, 999), (0, 1_000_000), (1, 0), (9, 5), (10, 0), (123_456, 999_999_999_999)]
    names = [part_name(Slice(file_no=file, row_start=row), "parquet") for file, row in slices]
    assert names == sorted(names)
    assert names[2] == "part-000000-000001000000.parquet"
    assert part_name(Slice(file_no=1, row_start=7), "csv", retry=2) == "part-000001-000000000007-r2.csv"
