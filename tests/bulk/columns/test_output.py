"""Outputs as columns."""

from __future__ import annotations

import io

import ml_dtypes
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.bulk.columns.made import job, manifest, tensor

from headrace.bulk.columns.base import ColumnMismatch
from headrace.bulk.columns.classes import best_classes
from headrace.bulk.columns.output import SHAPE_KEY, OutputColumns
from headrace.contracts import TensorSpec
from headrace.contracts.tensors.datatypes import DTYPES

NOTHING = pa.schema([])


def columns(
    *outputs: TensorSpec, schema: pa.Schema = NOTHING, labels: tuple[str, ...] = (), **fields: object
) -> OutputColumns:
    return OutputColumns(manifest(tensor(), outputs=outputs, labels=labels), job(**fields), schema)


def no_columns(rows: int) -> pa.RecordBatch:
    return pa.RecordBatch.from_pydict({"_": [None] * rows})


def test_vectors_are_fixed_size_lists_that_share_the_memory_of_the_outputs() -> None:
    made = columns(tensor("y", shape=(2, 3)), tensor("z"))
    values = np.arange(24, dtype=np.float32).reshape(4, 2, 3)
    batch = made.batch({"y": values, "z": np.arange(4, dtype=np.float32)}, no_columns(4))
    assert batch.schema.equals(made.schema, check_metadata=True)
    assert made.schema.field("y").type == pa.list_(pa.float32(), 6)
    assert made.schema.field("y").metadata == {SHAPE_KEY: b"[2,3]"}
    assert made.schema.field("z").type == pa.float32()
    assert np.shares_memory(batch.column("y").values.to_numpy(), values)
    assert batch.column("y").to_pylist() == values.reshape(4, 6).tolist()


@given(
    datatype=st.sampled_from([name for name in DTYPES if name != "BYTES"]),
    shape=st.sampled_from([(), (2,), (2, 2), (-1,), (-1, 2), (-1, -1)]),
    rows=st.integers(0, 3),
)
def test_every_datatype_and_shape_comes_back_from_parquet(datatype: str, shape: tuple[int, ...], rows: int) -> None:
    made = columns(tensor("y", datatype, shape))
    sizes = tuple(3 if size == -1 else size for size in shape)
    values = (np.arange(rows * int(np.prod(sizes))).reshape(rows, *sizes) % 7).astype(DTYPES[datatype])
    batch = made.batch({"y": values}, no_columns(rows))
    assert batch.num_rows == rows
    buffer = io.BytesIO()
    pq.write_table(pa.Table.from_batches([batch]), buffer)
    again = pq.read_table(buffer).column("y")
    flat = values.astype(np.float64).reshape(rows, *sizes)
    nested = (
        flat.tolist() if len(shape) < 2 or shape.count(-1) > 1 else flat.reshape(rows, int(np.prod(sizes))).tolist()
    )
    assert again.to_pylist() == nested


def test_half_precision_is_written_as_what_every_reader_knows() -> None:
    made = columns(tensor("a", "BF16"), tensor("b", "FP16", (2,)))
    assert made.schema.field("a").type == pa.float32()
    assert made.schema.field("b").type == pa.list_(pa.float32(), 2)
    batch = made.batch({"a": np.array([1.5], ml_dtypes.bfloat16), "b": np.array([[1, 2]], np.float16)}, no_columns(1))
    assert batch.to_pylist() == [{"a": 1.5, "b": [1.0, 2.0]}]


def test_strings_are_text_and_bytes_that_are_none_base64() -> None:
    made = columns(tensor("a", "BYTES"), tensor("b", "BYTES", (2,)))
    found = made.batch({"a": np.array([b"\xff"], object), "b": np.array([["x", "ü".encode()]], object)}, no_columns(1))
    assert found.to_pylist() == [{"a": "/w==", "b": ["x", "ü"]}]


def test_a_classifier_has_label_and_score_beside_its_outputs() -> None:
    made = columns(tensor("scores", shape=(3,)), labels=("a", "b", "c"))
    assert made.schema.names == ["scores", "label", "score"]
    found = made.batch({"scores": np.array([[1, 5, 2], [7, 0, 0], [np.nan, 1, 2]], np.float32)}, no_columns(3))
    assert found.column("label").to_pylist() == ["b", "a", None]
    assert found.column("score").to_pylist() == [5.0, 7.0, None]


@given(data=st.data(), classes=st.sampled_from([2, 3, 32, 33, 40]), rows=st.integers(0, 5))
def test_the_best_class_is_the_first_of_the_highest(data: st.DataObject, classes: int, rows: int) -> None:
    numbers = st.lists(st.integers(-3, 3), min_size=classes, max_size=classes)
    scores = np.array(data.draw(st.lists(numbers, min_size=rows, max_size=rows)), np.float32).reshape(rows, classes)
    best, highest = best_classes(scores)
    assert best.tolist() == scores.argmax(axis=1).tolist()
    assert highest.tolist() == scores.max(axis=1).tolist()


def test_the_label_is_that_of_the_probabilities_where_there_are_logits_too() -> None:
    made = columns(tensor("logits", shape=(2,)), tensor("probabilities", shape=(2,)), labels=("a", "b"))
    outputs = {"logits": np.array([[9, 0]], np.float32), "probabilities": np.array([[0.25, 0.75]], np.float32)}
    assert made.batch(outputs, no_columns(1)).to_pylist()[0]["score"] == 0.75


def test_what_a_model_calls_its_label_itself_is_not_replaced() -> None:
    made = columns(tensor("label", "INT64"), tensor("probabilities", shape=(2,)), labels=("a", "b"))
    assert made.schema.names == ["label", "probabilities", "score"]


def test_labels_without_an_output_for_them_make_no_column() -> None:
    assert columns(tensor("y", shape=(3,)), labels=("a", "b")).schema.names == ["y"]


def test_kept_columns_come_first_and_keep_their_types() -> None:
    schema = pa.schema([
        ("at", pa.timestamp("ms", "UTC")), ("name", pa.dictionary(pa.int8(), pa.string())), ("rest", pa.int64())
    ])  # fmt: skip
    made = columns(tensor("y"), schema=schema, keep=("name", "at"))
    assert made.schema.names == ["name", "at", "y"]
    assert made.schema.field("name").type == schema.field("name").type
    table = pa.RecordBatch.from_pylist([{"at": 5, "name": "a", "rest": 1}], schema)
    assert made.batch({"y": np.ones(1, np.float32)}, table).column("at").type == pa.timestamp("ms", "UTC")


def test_a_kept_column_of_another_file_is_cast_to_the_type_of_the_first() -> None:
    made = columns(tensor("y"), schema=pa.schema([("id", pa.int64())]), keep=("id",))
    table = pa.RecordBatch.from_pydict({"id": pa.array([1], pa.int32())})
    assert made.batch({"y": np.ones(1, np.float32)}, table).column("id").type == pa.int64()


def test_a_kept_column_that_is_called_like_an_output_is_refused() -> None:
    schema = pa.schema([("label", pa.int64()), ("scores", pa.int64())])
    for clash in ("label", "scores"):
        with pytest.raises(ColumnMismatch, match=f"column '{clash}' is kept, but .* --prefix model_"):
            columns(tensor("scores", shape=(2,)), schema=schema, labels=("a", "b"), keep=(clash,))
    made = columns(tensor("scores", shape=(2,)), schema=schema, labels=("a", "b"), keep=("label",), prefix="p_")
    assert made.schema.names == ["label", "p_scores", "p_label", "p_score"]


def test_rows_are_found_where_the_model_has_them() -> None:
    made = columns(tensor("y", shape=(2,), rows_at=1))
    found = made.batch({"y": np.array([[1, 2, 3], [4, 5, 6]], np.float32)}, no_columns(3))
    assert found.column("y").to_pylist() == [[1, 4], [2, 5], [3, 6]]


def test_an_output_without_rows_belongs_to_the_only_row() -> None:
    made = columns(tensor("y", shape=(2,), per_request=True))
    assert made.batch({"y": np.array([1, 2], np.float32)}, no_columns(1)).to_pylist() == [{"y": [1.0, 2.0]}]


def test_outputs_that_the_package_drops_are_no_columns() -> None:
    from headrace.contracts.package.manifest import StoreAdvice

    model = manifest(tensor(), outputs=(tensor("y"), tensor("z")), store=StoreAdvice(keep=("z",)))
    assert OutputColumns(model, job(), NOTHING).schema.names == ["z"]
