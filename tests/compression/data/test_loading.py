"""Data files of every kind become the inputs of a model, exactly; whatever is wrong with one is one clear line."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from headrace.compression.data.dataset import Dataset
from headrace.compression.data.loading import read_dataset
from headrace.compression.errors import DataError, MissingLibrary
from headrace.contracts import TensorSpec

FEATURES = (TensorSpec(name="x", datatype="FP32", shape=(3,)),)
IMAGE = (TensorSpec(name="image", datatype="FP32", shape=(1, 2, 2), allow_nan=False),)
TOKENS = (
    TensorSpec(name="ids", datatype="INT64", shape=(-1,)),
    TensorSpec(name="mask", datatype="BOOL", shape=(-1,)),
)
PERSON = (
    TensorSpec(name="age", datatype="INT64"),
    TensorSpec(name="height", datatype="FP32", shape=(1,)),
    TensorSpec(name="name", datatype="BYTES"),
    TensorSpec(name="smokes", datatype="BOOL"),
)
CSV = "a,b,c,y\n1,2.5,3,0\n4,5,-6e2,1\n"


def write_csv(path: Path, rows: list[dict[str, Any]]) -> Path:
    lines = [",".join(rows[0]), *(",".join(str(value) for value in row.values()) for row in rows)]
    path = path / "data.csv"
    path.write_text("\n".join(lines))
    return path


def write_jsonl(path: Path, rows: list[dict[str, Any]]) -> Path:
    path = path / "data.jsonl"
    path.write_text("\n".join(map(json.dumps, rows)) + "\n\n")
    return path


def write_parquet(path: Path, rows: list[dict[str, Any]]) -> Path:
    path = path / "data.parquet"
    pq.write_table(pa.Table.from_pylist(rows), path)
    return path


def write_npz(path: Path, rows: list[dict[str, Any]]) -> Path:
    path = path / "data.npz"
    columns: dict[str, Any] = {name: np.array([row[name] for row in rows]) for name in rows[0]}
    np.savez(path, **columns)
    return path


Write = Callable[[Path, list[dict[str, Any]]], Path]
TABULAR: list[Write] = [write_csv, write_jsonl, write_parquet, write_npz]
NESTED: list[Write] = [write_jsonl, write_parquet, write_npz]


def text_file(tmp_path: Path, text: str, name: str = "data.csv") -> Path:
    path = tmp_path / name
    path.write_text(text)
    return path


def refusal(path: Path, inputs: Any = FEATURES, label: str | None = "y", names: tuple[str, ...] = ()) -> str:
    with pytest.raises(DataError) as caught:
        read_dataset(path, inputs, label, names=names)
    message = caught.value.message
    assert message.startswith(f"{path}: ")
    return message.removeprefix(f"{path}: ")


def same(found: Dataset, inputs: dict[str, Any]) -> None:
    assert found.inputs.keys() == inputs.keys()
    for name, array in inputs.items():
        assert found.inputs[name].dtype == array.dtype
        assert found.inputs[name].tolist() == array.tolist()


@pytest.mark.parametrize("write", TABULAR)
def test_a_model_of_one_row_of_numbers_takes_all_columns_but_the_label(tmp_path: Path, write: Write) -> None:
    path = write(tmp_path, [{"a": 1, "b": 2.5, "y": 0, "c": 3}, {"a": 4, "b": 5.0, "y": 1, "c": -600}])
    found = read_dataset(path, FEATURES, "y")
    same(found, {"x": np.array([[1, 2.5, 3], [4, 5, -600]], np.float32)})
    assert found.labels is not None
    assert found.labels.dtype == np.int64
    assert found.labels.tolist() == [0, 1]


@pytest.mark.parametrize("write", TABULAR)
def test_columns_named_like_the_inputs_become_them_and_others_are_left_alone(tmp_path: Path, write: Write) -> None:
    rows = [
        {"city": "Ulm", "name": "Zoë", "age": 31, "height": 1.5, "smokes": True},
        {"city": "Bern", "name": "Bo", "age": 40, "height": 2, "smokes": False},
    ]
    found = read_dataset(write(tmp_path, rows), PERSON, None)
    assert found.labels is None
    same(
        found,
        {
            "age": np.array([31, 40]),
            "height": np.array([[1.5], [2]], np.float32),
            "name": np.array(["Zoë".encode(), b"Bo"], dtype=object),
            "smokes": np.array([True, False]),
        },
    )


@pytest.mark.parametrize("write", NESTED)
def test_nested_columns_become_tensors(tmp_path: Path, write: Write) -> None:
    rows = [{"ids": [1, 2, 3], "mask": [1, 1, 0]}, {"ids": [4, 5, 6], "mask": [1, 0, 0]}]
    same(
        read_dataset(write(tmp_path, rows), TOKENS, None),
        {
            "ids": np.array([[1, 2, 3], [4, 5, 6]]),
            "mask": np.array([[True, True, False], [True, False, False]]),
        },
    )
    image = [[[1, 2], [3, 4]]]
    found = read_dataset(write(tmp_path, [{"image": image, "y": 3}] * 2), IMAGE, "y")
    same(found, {"image": np.array([image, image], np.float32)})


@pytest.mark.parametrize("write", NESTED)
def test_a_flat_row_takes_the_shape_of_the_input(tmp_path: Path, write: Write) -> None:
    found = read_dataset(write(tmp_path, [{"image": [1, 2, 3, 4]}] * 2), IMAGE, None)
    assert found.inputs["image"].tolist() == [[[[1, 2], [3, 4]]]] * 2


def test_columns_of_pixels_take_the_shape_of_the_image(tmp_path: Path) -> None:
    path = text_file(tmp_path, "label,p0,p1,p2,p3\n7,0,128,255,1\n")
    same(read_dataset(path, IMAGE, "label"), {"image": np.array([[[[0, 128], [255, 1]]]], np.float32)})


def test_uint8_images_are_never_scaled(tmp_path: Path) -> None:
    np.savez(tmp_path / "a.npz", image=np.full((2, 1, 2, 2), 255, np.uint8))
    assert read_dataset(tmp_path / "a.npz", IMAGE, None).inputs["image"].max() == 255


def test_a_lone_array_is_the_input_of_a_model_with_one(tmp_path: Path) -> None:
    np.save(tmp_path / "a.npy", np.ones((5, 3), np.float64))
    same(read_dataset(tmp_path / "a.npy", FEATURES, None), {"x": np.ones((5, 3), np.float32)})
    assert "no label column 'y'; the file has 'a'" in refusal(tmp_path / "a.npy")
    assert "there is no column 'ids' or 'mask'" in refusal(tmp_path / "a.npy", TOKENS, None)


def test_a_lone_column_beside_the_label_is_the_input_whatever_its_name(tmp_path: Path) -> None:
    np.savez(tmp_path / "a.npz", pixels=np.ones((5, 3), np.int16), y=np.arange(5))
    same(read_dataset(tmp_path / "a.npz", FEATURES, "y"), {"x": np.ones((5, 3), np.float32)})


def test_labels_of_text_are_found_among_those_of_the_package(tmp_path: Path) -> None:
    path = text_file(tmp_path, "a,b,c,y\n1,2,3,dog\n1,2,3, cat \n")
    found = read_dataset(path, FEATURES, "y", names=("cat", "dog"))
    assert found.labels is not None
    assert found.labels.tolist() == [1, 0]
    assert "holds 'cat', which is no label of the model: 'dog', 'cow'" in refusal(path, names=("dog", "cow"))
    assert "holds text such as 'dog', but the package has no labels" in refusal(path)


@pytest.mark.parametrize("write", TABULAR)
def test_a_number_that_is_a_label_of_the_package_is_that_class(tmp_path: Path, write: Write) -> None:
    path = write(tmp_path, [{"a": 1, "b": 2, "c": 3, "y": 3}, {"a": 1, "b": 2, "c": 3, "y": 5}])
    found = read_dataset(path, FEATURES, "y", names=("3", "4", "5"))
    assert found.labels is not None
    assert found.labels.tolist() == [0, 2]
    assert "holds 3, which is none of the model's 2 labels, 'a', 'b'" in refusal(path, names=("a", "b"))


def test_labels_may_be_numbers_or_rows_of_them(tmp_path: Path) -> None:
    np.savez(tmp_path / "a.npz", x=np.ones((2, 3)), y=np.array([[1.5, 2], [3, 4]], np.float32), z=[True, False])
    found = read_dataset(tmp_path / "a.npz", FEATURES, "y").labels
    assert found is not None
    assert found.dtype == np.float64
    assert found.tolist() == [[1.5, 2], [3, 4]]
    truths = read_dataset(tmp_path / "a.npz", FEATURES, "z").labels
    assert truths is not None
    assert truths.tolist() == [1, 0]
    path = text_file(tmp_path, "x0,x1,x2,y\n1,2,3,0.5\n1,2,3,\n")
    assert "label column 'y' holds NaN, infinity or nothing in row 1" in refusal(path)


def test_whole_floats_are_class_ids_of_a_package_with_labels(tmp_path: Path) -> None:
    x = np.ones((2, 3), np.float32)
    np.savez(tmp_path / "a.npz", x=x, y=np.array([1.0, 0.0]), z=np.array([0.5, 1]), day=np.zeros(2, "M8[D]"))
    for names in (("a", "b"), ("0", "1")):
        found = read_dataset(tmp_path / "a.npz", FEATURES, "y", names=names).labels
        assert found is not None
        assert found.dtype == np.int64
        assert found.tolist() == [1, 0]
        numbers = read_dataset(tmp_path / "a.npz", FEATURES, "z", names=names).labels
        assert numbers is not None
        assert numbers.tolist() == [0.5, 1]
    assert "label column 'day' holds datetime64[D]; labels are numbers or text" in refusal(
        tmp_path / "a.npz", label="day"
    )


def test_an_array_without_rows_or_elements_is_refused(tmp_path: Path) -> None:
    np.savez(tmp_path / "a.npz", x=np.float32(3))
    assert refusal(tmp_path / "a.npz", label=None) == "column 'x' is a single value without rows"
    np.savez(tmp_path / "a.npz", ids=np.ones((2, 0)), mask=np.ones((2, 0)))
    assert refusal(tmp_path / "a.npz", TOKENS, None) == "column 'ids' has rows without any element"


def test_an_empty_cell_is_nan_where_the_model_takes_that(tmp_path: Path) -> None:
    path = text_file(tmp_path, "a,b,c\n1,,3\n")
    assert np.isnan(read_dataset(path, FEATURES, None).inputs["x"]).tolist() == [[False, True, False]]
    strict = (TensorSpec(name="x", datatype="FP32", shape=(3,), allow_nan=False),)
    assert "column 'b' holds NaN, infinity or nothing in row 0, which input 'x' forbids" in refusal(path, strict, None)
    whole = (TensorSpec(name="x", datatype="INT32", shape=(3,)),)
    assert "column 'b' has no value in row 0, where INT32 is expected" in refusal(path, whole, None)


def test_null_is_nan_in_json_and_parquet(tmp_path: Path) -> None:
    rows: list[dict[str, Any]] = [{"a": 1.0, "b": None, "c": 2}, {"a": 1.0, "b": 3, "c": 2}]
    for write in (write_jsonl, write_parquet):
        found = read_dataset(write(tmp_path, rows), FEATURES, None).inputs["x"]
        assert np.isnan(found).tolist() == [[False, True, False], [False] * 3]
    path = text_file(tmp_path, '{"a": 1, "b": NaN, "c": 2}\n', "data.ndjson")
    assert np.isnan(read_dataset(path, FEATURES, None).inputs["x"][0, 1])


@pytest.mark.parametrize(
    ("datatype", "values", "problem"),
    [
        ("INT64", [1.5], "column 'x' must be INT64, but holds values of numpy type float64"),
        ("UINT8", [256], "column 'x' has values outside UINT8 (0 to 255)"),
        ("FP16", [1e6], "column 'x' has values outside FP16"),
        ("BOOL", [2], "column 'x' must be BOOL, but holds values of numpy type int64"),
        ("BYTES", [2], "column 'x' must be BYTES (strings), but holds int"),
        ("FP32", [1 + 2j], "column 'x' must be FP32, but holds values of numpy type complex128"),
        ("FP32", ["two"], "column 'x' holds 'two' in row 0, where FP32 of input 'x' is expected"),
    ],
)
def test_a_value_that_would_change_is_refused(tmp_path: Path, datatype: str, values: list[Any], problem: str) -> None:
    np.savez(tmp_path / "a.npz", x=np.array(values))
    assert problem in refusal(tmp_path / "a.npz", (TensorSpec(name="x", datatype=datatype),), None)


@pytest.mark.parametrize(
    ("datatype", "values"),
    [("INT8", [1.0, -2.0]), ("FP32", [True, False]), ("BOOL", [1.0, 0.0]), ("BF16", [1, 2]), ("FP64", ["1", "2e0"])],
)
def test_a_value_that_stays_the_same_is_converted(tmp_path: Path, datatype: str, values: list[Any]) -> None:
    np.savez(tmp_path / "a.npz", x=np.array(values))
    found = read_dataset(tmp_path / "a.npz", (TensorSpec(name="x", datatype=datatype),), None).inputs["x"]
    assert found.astype(np.float64).tolist() == np.array(values).astype(np.float64).tolist()


@pytest.mark.parametrize("write", TABULAR)
def test_wrong_columns_are_named_with_those_that_are_there(tmp_path: Path, write: Write) -> None:
    path = write(tmp_path, [{"a": 1, "b": 2, "y": 0}])
    problem = refusal(path)
    assert "the model takes x FP32 [rows, 3], 3 numbers a row, but there are 2 columns beside the label: 'a', 'b'" in (
        problem
    )
    assert "there is no label column 'z'; the file has 'a', 'b', 'y'" in refusal(path, label="z")
    problem = refusal(path, TOKENS, None)
    assert "there is no column 'ids' or 'mask'; the model takes ids INT64 [rows, ?]; mask BOOL [rows, ?]" in problem
    assert "'a' is an input of the model" in refusal(path, (TensorSpec(name="a", datatype="FP32"),), "a")


@pytest.mark.parametrize("write", NESTED)
def test_a_wrong_shape_is_named_with_the_right_one(tmp_path: Path, write: Write) -> None:
    path = write(tmp_path, [{"image": [[1, 2], [3, 4]]}])
    problem = refusal(path, IMAGE, None)
    assert problem == "column 'image' has rows of the shape [2, 2], but the model takes image FP32 [rows, 1, 2, 2]"
    path = write(tmp_path, [{"p": [1, 2], "q": [3, 4]}])
    assert "'p' is not one number a row" in refusal(path, IMAGE, None)


def test_ragged_data_are_refused_with_the_place(tmp_path: Path) -> None:
    assert "line 3 has 3 cells, but the first line names 4 columns" in refusal(
        text_file(tmp_path, "a,b,c,y\n1,2,3,4\n1,2,3\n")
    )
    rows = [{"ids": [1, 2], "mask": [1, 1]}, {"ids": [1, 2, 3], "mask": [1, 1]}]
    problem = refusal(write_jsonl(tmp_path, rows), TOKENS, None)
    assert "column 'ids' is ragged: row 1 has the shape [3], row 0 has [2]" in problem
    problem = refusal(write_parquet(tmp_path, rows), TOKENS, None)
    assert "column 'ids' is ragged: lists of 2 to 3 values" in problem
    problem = refusal(write_jsonl(tmp_path, [{"image": [[[1, 2], [3]]]}]), IMAGE, None)
    assert "column 'image' is ragged within a row" in problem
    np.savez(tmp_path / "a.npz", x=np.ones((5, 3)), y=np.arange(4))
    assert "the columns differ in their number of rows: 'x' 5, 'y' 4" in refusal(tmp_path / "a.npz")


@pytest.mark.parametrize("name", ["a.npz", "a.npy", "a.csv", "a.parquet", "a.jsonl", "a.ndjson"])
def test_empty_and_missing_and_broken_files_are_refused(tmp_path: Path, name: str) -> None:
    path = tmp_path / name
    assert "can't be read: No such file" in refusal(path)
    path.write_bytes(b"")
    assert refusal(path) == "the file is empty"
    for garbage in (b"\x93\xff\x00garbage\xfe", b"PAR1garbagePAR1", b"PK\x03\x04garbage"):
        path.write_bytes(garbage)
        refusal(path)
    path.unlink()
    path.mkdir()
    refusal(path)


@pytest.mark.parametrize("write", [write_npz, write_parquet])
@pytest.mark.parametrize("kept", [0.3, 0.9, 0.99])
def test_a_file_that_was_cut_off_is_refused(tmp_path: Path, write: Write, kept: float) -> None:
    path = write(tmp_path, [{"x": [1.0, 2.0, 3.0], "y": 1}] * 50)
    whole = path.read_bytes()
    path.write_bytes(whole[: int(len(whole) * kept)])
    refusal(path)


def test_files_without_rows_are_refused(tmp_path: Path) -> None:
    assert refusal(text_file(tmp_path, "a,b,c,y\n")) == "there are no rows in it"
    assert refusal(text_file(tmp_path, "\n\n", "a.jsonl")) == "there are no rows in it"
    np.savez(tmp_path / "a.npz", x=np.ones((0, 3)), y=np.ones(0))
    assert refusal(tmp_path / "a.npz") == "there are no rows in it"
    pq.write_table(
        pa.table({"x": pa.array([], pa.list_(pa.float32())), "y": pa.array([], pa.int64())}), tmp_path / "a.parquet"
    )
    assert refusal(tmp_path / "a.parquet") == "there are no rows in it"


def test_pickled_objects_are_never_read(tmp_path: Path) -> None:
    np.savez(tmp_path / "a.npz", x=np.array([{"a": 1}], dtype=object), y=np.arange(1))
    assert "column 'x' holds Python objects or is damaged" in refusal(tmp_path / "a.npz")
    np.save(tmp_path / "a.npy", np.array([{"a": 1}], dtype=object))
    assert "pickled objects are never read" in refusal(tmp_path / "a.npy", label=None)


def test_a_file_of_an_unknown_kind_is_refused_with_those_that_are_read(tmp_path: Path) -> None:
    assert "give one of .npz, .npy, .csv, .parquet, .jsonl, .ndjson" in refusal(text_file(tmp_path, "x", "a.xlsx"))


def test_the_first_line_of_a_csv_file_must_name_its_columns(tmp_path: Path) -> None:
    assert "the first line holds numbers" in refusal(text_file(tmp_path, "1.5,2,3\n1,2,3\n"), label=None)
    assert "column 1 has no name" in refusal(text_file(tmp_path, ",a,b,c,y\n0,1,2,3,4\n"))
    assert "'a' occurs twice" in refusal(text_file(tmp_path, "a,a,c,y\n0,1,2,3\n"))
    assert "separate the columns with commas" in refusal(text_file(tmp_path, "a;b;c;y\n0;1;2;3\n"))
    found = read_dataset(text_file(tmp_path, "0,1,2\n5,6,7\n"), FEATURES, None)
    assert found.inputs["x"].tolist() == [[5, 6, 7]]


def test_text_that_is_not_utf8_is_refused(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_bytes("a,b,c,y\n1,2,3,Zoë\n".encode("latin-1"))
    assert "not UTF-8 text" in refusal(tmp_path / "a.csv")


def test_a_byte_order_mark_and_quotes_are_taken(tmp_path: Path) -> None:
    path = tmp_path / "a.csv"
    path.write_bytes(b'\xef\xbb\xbf"a, first",b,c,y\r\n"1",2,3,0\r\n')
    assert read_dataset(path, FEATURES, "y").inputs["x"].tolist() == [[1, 2, 3]]


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ('{"x": [1, 2, 3], "y": 0}\n{"x": [1, 2, 3]}\n', "line 2 has no 'y', which the first line has"),
        ('{"x": [1, 2, 3], "y": 0}\n[1]\n', "line 2 is not a JSON object"),
        ('{"x": [1, 2, 3], "y": 0}\n{"x": [1,\n', "line 2 is not JSON"),
        ('{"x": [1, "b", 3], "y": 0}\n', "column 'x'"),
        ('{"x": {"a": 1}, "y": 0}\n', "column 'x' holds"),
    ],
)
def test_a_line_that_is_no_row_is_refused_with_its_number(tmp_path: Path, text: str, problem: str) -> None:
    assert problem in refusal(text_file(tmp_path, text, "a.jsonl"))


def test_parquet_columns_of_every_layout_are_read(tmp_path: Path) -> None:
    values = [[1.0, 2.0, 3.0], [4.0, 5.0, 6.0]]
    flat = pa.array([1, 2, 3, 4, 5, 6], pa.float32())
    tensor = pa.FixedShapeTensorArray.from_storage(
        pa.fixed_shape_tensor(pa.float32(), [3]), pa.FixedSizeListArray.from_arrays(flat, 3)
    )
    for x in (
        pa.array(values, pa.large_list(pa.float16())),
        pa.array(values, pa.list_(pa.int8(), 3)),
        pa.chunked_array([pa.array(values[:1]), pa.array(values[1:])]),
        tensor,
    ):
        pq.write_table(
            pa.table({"x": x, "y": pa.array(["b", "a"]).dictionary_encode(), "__index_level_0__": [7, 8]}),
            tmp_path / "a.parquet",
        )
        found = read_dataset(tmp_path / "a.parquet", FEATURES, "y", names=("a", "b"))
        same(found, {"x": np.array(values, np.float32)})
        assert found.labels is not None
        assert found.labels.tolist() == [1, 0]


def test_parquet_without_a_list_in_some_row_is_refused(tmp_path: Path) -> None:
    path = write_parquet(tmp_path, [{"x": [1.0, 2, 3], "y": 1}, {"x": None, "y": 1}])
    assert "column 'x' has no value in 1 of its lists" in refusal(path)


def test_parquet_without_its_library_says_which_extra_brings_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = write_parquet(tmp_path, [{"x": [1.0, 2, 3], "y": 1}])
    monkeypatch.setitem(__import__("sys").modules, "pyarrow", None)
    with pytest.raises(MissingLibrary, match=r"headrace\[compress\]"):
        read_dataset(path, FEATURES, "y")


def test_the_digits_of_the_demo_are_read(digits: Dataset, tmp_path: Path) -> None:
    assert digits.labels is not None
    np.savez(tmp_path / "digits.npz", image=digits.inputs["image"], digit=digits.labels)
    spec = (TensorSpec(name="image", datatype="FP32", shape=(1, 8, 8), allow_nan=False),)
    found = read_dataset(tmp_path / "digits.npz", spec, "digit", names=tuple("0123456789"))
    np.testing.assert_array_equal(found.inputs["image"], digits.inputs["image"])
    np.testing.assert_array_equal(found.labels, digits.labels)
