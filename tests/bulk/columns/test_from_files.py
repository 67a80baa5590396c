"""The same rows are the same tensors, whatever format of file they come from."""

from __future__ import annotations

import csv
import io
import json
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.feather as feather
import pyarrow.parquet as pq
import pytest
from numpy.typing import NDArray
from PIL import Image
from tests.bulk.columns.images.drawn import encoded, picture
from tests.bulk.columns.made import job, manifest, tensor

from headrace.bulk.columns.base import Refused
from headrace.bulk.columns.preparation import make_preparation
from headrace.bulk.sources.schemas import with_floats
from headrace.bulk.sources.slices import Wanted, read_slice, schema_of
from headrace.bulk.storage.opening import open_storage
from headrace.bulk.storage.roots import Roots
from headrace.contracts import ModelPackage, TensorSpec
from headrace.contracts.package.image_recipe import ImageDecode
from headrace.results_store.jobs.records import InputFile, Slice

ROWS = 50
#: Whole numbers in the first rows, so that a guess of types from them is wrong.
X = np.where(np.arange(ROWS)[:, None] < 40, np.arange(ROWS * 4).reshape(ROWS, 4) % 17, 0.5).astype(np.float32)
INPUT = tensor("x", shape=(2, 2))


def cells(path: Path, columns: dict[str, list[str]]) -> None:
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(columns)
        writer.writerows(zip(*columns.values(), strict=True))


def made_file(folder: Path, kind: str) -> Path:
    """Write the rows in a format."""
    path = folder / f"rows.{kind.partition('-')[0]}"
    table = pa.table({"id": range(ROWS), "x": pa.FixedSizeListArray.from_arrays(pa.array(X.reshape(-1)), 4)})
    if kind == "parquet":
        pq.write_table(table, path, row_group_size=7)
    elif kind == "arrow":
        feather.write_feather(table, path)
    elif kind == "npy":
        np.save(path, X.reshape(ROWS, 2, 2))
    elif kind == "npz":
        np.savez(path, x=X.reshape(ROWS, 2, 2), id=np.arange(ROWS))
    elif kind == "csv-lists":
        cells(path, {"id": [str(row) for row in range(ROWS)], "x": [json.dumps(row) for row in X.tolist()]})
    elif kind == "csv-columns":
        cells(path, {f"f{place}": [f"{value:g}" for value in X[:, place].tolist()] for place in range(4)})
    elif kind == "jsonl":
        whole = [[int(value) if value == int(value) else value for value in row] for row in X.tolist()]
        path.write_text("".join(json.dumps({"id": row, "x": whole[row]}) + "\n" for row in range(ROWS)))
    elif kind == "jsonl-columns":
        lines = [
            {f"f{place}": value if value % 1 else int(value) for place, value in enumerate(row)} for row in X.tolist()
        ]
        path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    return path


def tensors_of_file(path: Path, spec: TensorSpec, **fields: Any) -> tuple[NDArray[Any], list[Refused]]:
    """Read a file as a shard does and prepare all its rows."""
    storage = open_storage(str(path.parent), Roots([str(path.parent)]))
    info = storage.stat(str(path))
    file = InputFile(file_no=0, uri=info.uri, format="", size=info.size, etag=info.etag)
    package = ModelPackage(folder=Path("/nowhere"), manifest=manifest(spec))

    def read_bytes(uri: str) -> bytes:
        with storage.open(uri) as raw:
            return raw.read()

    schema = schema_of(file, storage)
    first = make_preparation(package, job(**fields), schema, read_bytes=read_bytes)
    schema = with_floats(schema, set(first.float_columns))
    made = make_preparation(package, job(**fields), schema, read_bytes=read_bytes)
    made.file_uri = file.uri
    arrays, refused = [], []
    for batch in read_slice([file], Slice(file_no=0), storage, Wanted(columns=made.columns, schema=schema)):
        assert batch.bad == []
        rows = made.prepare(batch.table)
        arrays.append(rows.tensors(np.arange(len(rows.good)))[spec.name])
        refused += rows.refused
    return np.concatenate(arrays), refused


@pytest.mark.parametrize(
    "kind", ["parquet", "arrow", "npy", "npz", "csv-lists", "csv-columns", "jsonl", "jsonl-columns"]
)
def test_every_format_gives_the_same_tensors(tmp_path: Path, kind: str) -> None:
    found, refused = tensors_of_file(made_file(tmp_path, kind), INPUT)
    assert refused == []
    np.testing.assert_array_equal(found, X.reshape(ROWS, 2, 2))


def test_a_late_cell_of_another_type_is_one_bad_row(tmp_path: Path) -> None:
    cells(tmp_path / "late.csv", {"x": [*map(str, range(1000)), "abc", "7"]})
    found, refused = tensors_of_file(tmp_path / "late.csv", tensor("x"))
    assert len(found) == 1001
    assert [bad.message for bad in refused] == ["column 'x': 'abc' is no FP32"]


def test_image_files_and_lists_of_their_paths_are_the_same_images(tmp_path: Path) -> None:
    spec = tensor("picture", shape=(3, 32, 32), decode=ImageDecode(resize=36, crop=32))
    (tmp_path / "img").mkdir()
    images = [picture(40 + number, 50) for number in range(3)]
    for number, image in enumerate(images):
        (tmp_path / "img" / f"{number} ü.png").write_bytes(encoded(image))
    alone = [tensors_of_file(tmp_path / "img" / f"{number} ü.png", spec)[0] for number in range(3)]
    cells(tmp_path / "list.csv", {"file": [f"img/{number} ü.png" for number in range(3)]})
    listed, refused = tensors_of_file(tmp_path / "list.csv", spec)
    assert refused == []
    np.testing.assert_array_equal(listed, np.concatenate(alone))


def test_a_column_of_encoded_images_is_the_same_as_well(tmp_path: Path) -> None:
    spec = tensor("picture", shape=(3, 32, 32), decode=ImageDecode(resize=36, crop=32))
    content = encoded(picture())
    (tmp_path / "a.png").write_bytes(content)
    pq.write_table(pa.table({"id": [1, 2], "jpg": [content, content]}), tmp_path / "a.parquet")
    found, _ = tensors_of_file(tmp_path / "a.parquet", spec)
    np.testing.assert_array_equal(found[:1], tensors_of_file(tmp_path / "a.png", spec)[0])
    assert Image.open(io.BytesIO(content)).size == (60, 45)
