"""Rows survive each format: exactly what was written is read back."""

from __future__ import annotations

import base64
import io
import json
import math
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from headrace.bulk.sinks.base import PartFormat
from headrace.bulk.sinks.formats.opening import open_part, part_format
from headrace.bulk.sinks.formats.parquet import ROW_GROUP_BYTES, ROW_GROUP_ROWS
from headrace.contracts.errors import InvalidRequest
from headrace.contracts.jobs import OutputFormat, ScoreSpec

ROWS = settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)

INTEGERS = [pa.int8(), pa.int16(), pa.int32(), pa.int64(), pa.uint8(), pa.uint64()]
FLOATS = {
    pa.float16(): st.floats(width=16).map(np.float16),
    pa.float32(): st.floats(width=32),
    pa.float64(): st.floats(width=64),
}
TEXTS = {pa.string(): st.text(), pa.large_string(): st.text(), pa.binary(): st.binary()}


def numbers(kind: pa.DataType) -> st.SearchStrategy[Any]:
    if kind in FLOATS:
        return FLOATS[kind]
    if pa.types.is_boolean(kind):
        return st.booleans()
    bits = kind.bit_width
    signed = not pa.types.is_unsigned_integer(kind)
    return st.integers(-(2 ** (bits - 1)) if signed else 0, 2 ** (bits - signed) - 1)


@st.composite
def columns(draw: st.DrawFn, rows: int) -> pa.Array:
    """Return a column of a type that outputs or kept columns have."""
    kind = draw(st.sampled_from([*INTEGERS, *FLOATS, *TEXTS, pa.bool_()]))
    values = TEXTS[kind] if kind in TEXTS else numbers(kind)
    shape = draw(st.sampled_from(["plain", "null", "vector", "list", "struct"]))
    if shape == "vector":
        flat = draw(st.lists(values, min_size=3 * rows, max_size=3 * rows))
        return pa.FixedSizeListArray.from_arrays(pa.array(flat, kind), 3)
    if shape == "list":
        lists = st.lists(st.none() | st.lists(values, max_size=3), min_size=rows, max_size=rows)
        return pa.array(draw(lists), pa.list_(kind))
    if shape == "struct":
        structs = st.none() | st.fixed_dictionaries({"a": values, "b": st.none() | st.integers(0, 9)})
        fields = pa.struct([("a", kind), ("b", pa.int8())])
        return pa.array(draw(st.lists(structs, min_size=rows, max_size=rows)), fields)
    cells = st.none() | values if shape == "null" else values
    return pa.array(draw(st.lists(cells, min_size=rows, max_size=rows)), kind)


@st.composite
def tables(draw: st.DrawFn) -> pa.RecordBatch:
    rows = draw(st.integers(0, 6))
    arrays = [draw(columns(rows)) for _ in range(draw(st.integers(1, 4)))]
    names = draw(st.lists(st.text(min_size=1), min_size=len(arrays), max_size=len(arrays), unique=True))
    batch = pa.RecordBatch.from_arrays(arrays, names)
    return batch.slice(draw(st.integers(0, rows)))


def write(kind: PartFormat, folder: Path, *batches: pa.RecordBatch) -> Path:
    writer = open_part(kind, folder / "part", batches[0].schema)
    for batch in batches:
        writer.write(batch)
    path = writer.close()
    assert (writer.rows, writer.size_bytes) == (sum(batch.num_rows for batch in batches), path.stat().st_size)
    return path


def as_json(value: Any) -> Any:
    """Return what JSON makes of a value: no NaN, binary as base64."""
    if isinstance(value, float) and not math.isfinite(value):
        return None
    if isinstance(value, np.floating):
        return as_json(float(value))
    if isinstance(value, bytes):
        return base64.b64encode(value).decode()
    if isinstance(value, dict):
        return {name: as_json(item) for name, item in value.items()}
    return [as_json(item) for item in value] if isinstance(value, list) else value


def narrowed(value: Any, kind: pa.DataType) -> Any:
    """Return a number that was read as the nearest float of its column's width."""
    if isinstance(value, list):
        return [narrowed(item, kind.value_type) for item in value]
    if isinstance(value, dict):
        return {field.name: narrowed(value[field.name], field.type) for field in kind}
    if pa.types.is_floating(kind) and value is not None:
        return float(np.dtype(kind.to_pandas_dtype()).type(value))
    return value


def identical(left: Any, right: Any) -> bool:
    """Return whether values are equal, NaN to itself, and zeros of one sign."""
    return repr(left) == repr(right)


@ROWS
@given(batch=tables())
def test_rows_survive_parquet(batch: pa.RecordBatch, tmp_path: Path) -> None:
    read = pq.read_table(write("parquet", tmp_path, batch))
    assert read.schema.equals(batch.schema)
    assert identical(read.to_pylist(), batch.to_pylist())


@ROWS
@given(batch=tables())
def test_rows_survive_json_lines(batch: pa.RecordBatch, tmp_path: Path) -> None:
    lines = write("jsonl", tmp_path, batch).read_bytes().splitlines()
    read = [
        {field.name: narrowed(row[field.name], field.type) for field in batch.schema} for row in map(json.loads, lines)
    ]
    assert identical(read, [as_json(row) for row in batch.to_pylist()])


@ROWS
@given(batch=tables())
def test_rows_survive_csv(batch: pa.RecordBatch, tmp_path: Path) -> None:
    for at, field in enumerate(batch.schema):
        batch = batch.set_column(at, f"c{at}", batch.column(at)) if field.name != f"c{at}" else batch
    path = write("csv", tmp_path, batch)
    if batch.num_columns == 1 and batch.column(0).null_count:
        assert read_csv(path, batch.schema, quoted_null=True).num_rows == batch.num_rows
        return
    nested = [pa.types.is_nested(field.type) for field in batch.schema]
    read = read_csv(path, batch.schema)
    for at, field in enumerate(batch.schema):
        expected = batch.column(at).to_pylist()
        cells = read.column(at).to_pylist()
        if nested[at]:
            cells = [None if cell is None else narrowed(json.loads(cell), field.type) for cell in cells]
            expected = [as_json(value) for value in expected]
        elif pa.types.is_binary(field.type):
            expected = [as_json(value) for value in expected]
        else:
            expected = [float(value) if isinstance(value, np.floating) else value for value in expected]
        assert identical(cells, expected)


def read_csv(path: Path, schema: pa.Schema, *, quoted_null: bool = False) -> pa.Table:
    return pa.csv.read_csv(
        io.BytesIO(path.read_bytes()),
        parse_options=pa.csv.ParseOptions(newlines_in_values=True),
        convert_options=pa.csv.ConvertOptions(
            column_types={field.name: csv_type(field.type) for field in schema},
            strings_can_be_null=True,
            quoted_strings_can_be_null=quoted_null,
            null_values=[""],
        ),
    )


def csv_type(kind: pa.DataType) -> pa.DataType:
    if pa.types.is_nested(kind) or pa.types.is_binary(kind):
        return pa.string()
    return pa.float32() if pa.types.is_float16(kind) else kind


def test_a_table_of_no_rows_is_a_part(tmp_path: Path) -> None:
    empty = pa.RecordBatch.from_pydict({"a": pa.array([], pa.int8())})
    assert pq.read_table(write("parquet", tmp_path, empty)).schema.names == ["a"]
    assert write("csv", tmp_path, empty).read_bytes() == b'"a"\n'
    assert write("jsonl", tmp_path, empty).read_bytes() == b""


def test_kept_columns_of_rarer_types_are_text_in_csv_and_json(tmp_path: Path) -> None:
    batch = pa.RecordBatch.from_pydict(
        {
            "day": pa.array([20_000], pa.date32()),
            "at": pa.array([1_700_000_000_000_000_001], pa.timestamp("ns", "UTC")),
            "price": pa.array([1], pa.decimal128(5, 2)),
            "took": pa.array([5], pa.duration("s")),
            "kind": pa.array(["x"]).dictionary_encode(),
            "tags": pa.array([[("a", 1)]], pa.map_(pa.string(), pa.int8())),
        }
    )
    row = json.loads(write("jsonl", tmp_path, batch).read_bytes())
    assert row == {
        "day": "2024-10-04",
        "at": "2023-11-14 22:13:20.000000001Z",
        "price": "1.00",
        "took": 5,
        "kind": "x",
        "tags": {"a": 1},
    }
    cells = write("csv", tmp_path, batch).read_text().splitlines()[1]
    assert cells == '"2024-10-04","2023-11-14 22:13:20.000000001Z","1.00",5,"x","{""a"":1}"'


def test_row_groups_do_not_depend_on_batches(tmp_path: Path) -> None:
    batch = pa.RecordBatch.from_pydict({"a": np.arange(1000)})
    many = pq.read_metadata(write("parquet", tmp_path, *[batch] * 300))
    once = pq.read_metadata(write("parquet", tmp_path, pa.RecordBatch.from_pydict({"a": np.arange(300_000)})))
    for metadata in (many, once):
        sizes = [metadata.row_group(at).num_rows for at in range(metadata.num_row_groups)]
        assert max(sizes) <= ROW_GROUP_ROWS
        assert len(sizes) == 5


def test_row_groups_of_wide_rows_are_bounded_in_bytes(tmp_path: Path) -> None:
    wide = pa.FixedSizeListArray.from_arrays(pa.array(np.zeros(4096 * 4096, np.float32)), 4096)
    metadata = pq.read_metadata(write("parquet", tmp_path, pa.RecordBatch.from_arrays([wide], ["v"])))
    assert metadata.num_row_groups == 4
    assert metadata.row_group(0).total_byte_size <= 1.1 * ROW_GROUP_BYTES


def test_parquet_is_zstd_with_statistics_of_plain_columns(tmp_path: Path) -> None:
    vectors = pa.FixedSizeListArray.from_arrays(pa.array([0.5, 1.5], pa.float32()), 1)
    batch = pa.RecordBatch.from_arrays([pa.array([1, 2]), vectors], ["label", "v"])
    group = pq.read_metadata(write("parquet", tmp_path, batch)).row_group(0)
    label, vector = (group.column(at) for at in range(2))
    assert (label.compression, label.statistics.min, label.statistics.max) == ("ZSTD", 1, 2)
    assert (vector.compression, vector.statistics, vector.has_dictionary_page) == ("ZSTD", None, False)


@pytest.mark.parametrize("kind", ["parquet", "csv", "jsonl"])
def test_the_size_grows_with_the_rows_so_that_the_runner_can_cut(kind: PartFormat, tmp_path: Path) -> None:
    batch = pa.RecordBatch.from_pydict({"a": np.random.default_rng(0).random(50_000)})
    writer = open_part(kind, tmp_path / "part", batch.schema)
    sizes = []
    for _ in range(5):
        writer.write(batch)
        sizes.append(writer.size_bytes)
    assert sizes[0] >= 300_000
    assert sizes[-1] >= 0.9 * writer.close().stat().st_size


@pytest.mark.parametrize("kind", ["parquet", "csv", "jsonl"])
def test_a_part_has_its_name_only_when_it_is_whole(kind: PartFormat, tmp_path: Path) -> None:
    batch = pa.RecordBatch.from_pydict({"a": [1]})
    writer = open_part(kind, tmp_path / "part", batch.schema)
    writer.write(batch)
    assert not (tmp_path / "part").exists()
    writer.abort()
    assert list(tmp_path.iterdir()) == []


def test_other_columns_are_refused_and_nothing_is_left(tmp_path: Path) -> None:
    writer = open_part("parquet", tmp_path / "part", pa.schema([("a", pa.int8())]))
    with pytest.raises(InvalidRequest, match="do not fit"):
        writer.write(pa.RecordBatch.from_pydict({"b": [1]}))
    writer.abort()


FULL = """
import resource, sys
from pathlib import Path
import numpy as np, pyarrow as pa
from headrace.bulk.sinks.formats.opening import open_part, part_format
from headrace.bulk.storage.base import StorageUnavailable
resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, 100_000))
writer = open_part(sys.argv[1], Path(sys.argv[2]), pa.schema([("a", pa.float64())]))
batch = pa.RecordBatch.from_pydict({"a": np.random.default_rng(0).random(20_000)})
try:
    for _ in range(200):
        writer.write(batch)
    writer.close()
except StorageUnavailable as error:
    print(error)
"""


@pytest.mark.parametrize("kind", ["parquet", "csv", "jsonl"])
def test_a_full_disk_is_one_line_and_leaves_nothing(kind: PartFormat, tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-c", FULL, kind, tmp_path / "part"], capture_output=True, text=True, check=True
    )
    assert f"the scratch folder {tmp_path} is full; free space" in done.stdout
    assert list(tmp_path.iterdir()) == []


def test_lines_of_an_openai_batch(tmp_path: Path) -> None:
    vectors = pa.FixedSizeListArray.from_arrays(pa.array([0.1, 0.2, 0.3, 0.4], pa.float32()), 2)
    batch = pa.RecordBatch.from_arrays([pa.array(["r-1", "r-2"]), vectors], ["custom_id", "embedding"])
    writer = open_part("openai", tmp_path / "part", batch.schema, {"headrace.model": "minilm", "headrace.job": "j"})
    writer.write(batch)
    lines = [json.loads(line) for line in writer.close().read_bytes().splitlines()]
    assert [line["custom_id"] for line in lines] == ["r-1", "r-2"]
    assert lines[0]["response"]["status_code"] == 200
    assert lines[0]["error"] is None
    assert lines[0]["response"]["body"] == {
        "object": "list",
        "data": [{"object": "embedding", "index": 0, "embedding": [0.1, 0.2]}],
        "model": "minilm",
        "usage": {"prompt_tokens": 0, "total_tokens": 0},
    }
    assert len({line["id"] for line in lines} | {line["response"]["request_id"] for line in lines}) == 4


def test_an_openai_batch_needs_its_ids(tmp_path: Path) -> None:
    with pytest.raises(InvalidRequest, match="needs the column custom_id"):
        open_part("openai", tmp_path / "part", pa.schema([("a", pa.int8())]))


@pytest.mark.parametrize(
    ("output", "given_as", "kind"),
    [("jsonl", "openai", "openai"), ("parquet", "openai", "parquet"), ("jsonl", "", "jsonl"), ("csv", "csv", "csv")],
)
def test_json_lines_about_an_openai_batch_are_its_output_file(
    output: OutputFormat, given_as: str, kind: PartFormat
) -> None:
    spec = ScoreSpec(model="minilm", inputs=("/in",), output="/out", format=output, input_format=given_as)
    assert part_format(spec) == kind
