"""Which columns are which inputs."""

from __future__ import annotations

import datetime as dt

import pyarrow as pa
import pytest
from tests.bulk.columns.made import job, preparation, prepared, tensor, tensors_of

from headrace.bulk.columns.base import ColumnMismatch
from headrace.contracts import TensorSpec
from headrace.contracts.package.image_recipe import ImageDecode

DIGITS = tensor("image", shape=(1, 8, 8))
FLAT = pa.list_(pa.float32(), 64)


def schema(**columns: pa.DataType) -> pa.Schema:
    return pa.schema(list(columns.items()))


def refusal(columns: pa.Schema, *inputs: TensorSpec, **job_fields: object) -> str:
    """Return why columns don't fit."""
    with pytest.raises(ColumnMismatch) as caught:
        preparation(columns, *inputs, spec=job(**job_fields))
    return caught.value.message


def test_columns_are_found_by_name_and_others_are_left_alone() -> None:
    made = preparation(schema(id=pa.int64(), image=FLAT, note=pa.string()), DIGITS)
    assert made.columns == ("image",)
    assert made.notes == ()


def test_columns_of_floats_are_named_so_that_sources_read_integers_as_such() -> None:
    inputs = (tensor("a"), tensor("b", "INT64"), tensor("c", shape=(2,)))
    made = preparation(
        schema(a=pa.int64(), b=pa.int64(), d=pa.int64(), e=pa.int64()), *inputs, spec=job(mapping={"d,e": "c"})
    )
    assert made.float_columns == ("a", "d", "e")


def test_kept_columns_are_read_too() -> None:
    made = preparation(schema(id=pa.int64(), image=FLAT), DIGITS, spec=job(keep=("id", "image")))
    assert made.columns == ("image", "id")


def test_the_mapping_goes_before_the_name() -> None:
    made = preparation(schema(image=FLAT, other=FLAT), DIGITS, spec=job(mapping={"other": "image"}))
    assert made.columns == ("other",)


def test_the_only_column_that_can_be_an_input_is_taken_and_said() -> None:
    made = preparation(schema(id=pa.int64(), pixels=FLAT, note=pa.string(), at=pa.timestamp("s")), DIGITS)
    assert made.columns == ("pixels",)
    assert made.notes == ("column 'pixels' is taken for 'image', as no other fits so well",)


def test_columns_that_are_kept_are_not_taken_on_a_guess() -> None:
    made = preparation(schema(a=FLAT, b=FLAT), DIGITS, spec=job(keep=("a",)))
    assert made.columns == ("b", "a")


def test_all_columns_in_order_are_a_vector_when_their_number_fits() -> None:
    made = preparation(schema(a=pa.int64(), b=pa.float32(), c=pa.bool_()), tensor(shape=(3,)))
    assert made.columns == ("a", "b", "c")
    assert made.notes == ("the 3 columns 'a' to 'c', in their order, are taken for 'x'",)


def test_cells_of_text_files_are_a_vector_too() -> None:
    made = preparation(schema(id=pa.string(), a=pa.string(), b=pa.string()), tensor(shape=(2,)), spec=job(keep=("id",)))
    assert made.columns == ("a", "b", "id")


def test_where_two_guesses_are_possible_nobody_guesses() -> None:
    assert "say which with" in refusal(schema(a=pa.int64(), b=pa.int64(), c=pa.string()), tensor(shape=(3,)))
    assert "say which with" in refusal(schema(a=FLAT, b=FLAT), DIGITS)


def test_of_several_columns_that_can_be_it_the_one_called_input_is() -> None:
    made = preparation(schema(custom_id=pa.string(), url=pa.string(), input=pa.string()), DIGITS)
    assert made.columns == ("input",)


def test_columns_of_a_vector_are_named_in_their_order() -> None:
    table = pa.RecordBatch.from_pydict({"a": [1.0], "b": [2.0], "c": [3.0]})
    found = tensors_of(prepared(table, tensor(shape=(2,)), mapping={"c, a": "x"}))
    assert found["x"].tolist() == [[3.0, 1.0]]


def test_a_column_whose_name_has_a_comma_is_one_column() -> None:
    table = pa.RecordBatch.from_pydict({"a,b": [[1.0, 2.0]]})
    assert prepared(table, tensor(shape=(2,)), mapping={"a,b": "x"}).good.tolist() == [0]


def test_a_missing_column_names_the_close_one_and_the_option() -> None:
    message = refusal(schema(imgae=FLAT, other=FLAT), DIGITS)
    assert "no column is the input image FP32 [rows, 1, 8, 8] (did you mean 'imgae'?)" in message
    assert message.endswith("the columns are 'imgae', 'other'; say which with --map imgae=image")


def test_columns_for_a_vector_whose_number_does_not_fit_are_asked_for() -> None:
    message = refusal(schema(id=pa.int64(), a=pa.float64(), b=pa.float64()), tensor("features", shape=(2,)))
    assert "say which with --map F1,F2,…=features" in message


def test_many_columns_are_not_all_listed() -> None:
    message = refusal(schema(**{f"column{number}": pa.timestamp("s") for number in range(500)}), DIGITS)
    assert "'column11' and 488 more" in message


def test_an_input_that_does_not_exist_is_named_with_the_close_one() -> None:
    message = refusal(schema(a=FLAT), DIGITS, mapping={"a": "imge"})
    assert message == (
        "--map a=imge: the model has no input 'imge' (did you mean 'image'?); its inputs are 'image'"
    )  # fmt: skip


def test_a_mapped_column_that_does_not_exist_is_named_with_the_close_one() -> None:
    message = refusal(schema(pixels=FLAT), DIGITS, mapping={"pixel": "image"})
    assert "--map names the column 'pixel', which the input has not (did you mean 'pixels'?)" in message


def test_a_kept_column_that_does_not_exist_is_named() -> None:
    assert "--keep names the column 'idd'" in refusal(schema(id=pa.int64(), image=FLAT), DIGITS, keep=("idd",))


def test_a_name_that_two_columns_have_is_refused_where_it_is_needed() -> None:
    twice = pa.schema([("image", FLAT), ("image", FLAT), ("x", pa.int64()), ("x", pa.int64())])
    assert "2 columns called 'image'" in refusal(twice, DIGITS)
    other = pa.schema([("image", FLAT), ("x", pa.int64()), ("x", pa.int64())])
    assert preparation(other, DIGITS).columns == ("image",)


def test_one_input_has_one_mapping() -> None:
    message = refusal(schema(a=pa.int64(), b=pa.int64()), tensor(shape=(2,)), mapping={"a": "x", "b": "x"})
    assert message.endswith("give them in one, in order: --map a,b=x")


@pytest.mark.parametrize(
    ("kind", "message"),
    [
        (
            pa.list_(pa.float32(), 63),
            "column 'image' holds 63 values in each row, but image FP32 [rows, 1, 8, 8] takes 64",
        ),
        (pa.float32(), "column 'image' is float, but image FP32 [rows, 1, 8, 8] is wanted; if each value is a column"),
        (pa.binary(), "column 'image' is binary, but image FP32 [rows, 1, 8, 8] is wanted"),
        (pa.list_(pa.list_(pa.list_(pa.list_(pa.float32())))), "column 'image' is list<"),
        (pa.struct([("a", pa.int64())]), "column 'image' is struct<a: int64>"),
    ],
)
def test_a_type_that_does_not_fit_is_refused_before_any_row(kind: pa.DataType, message: str) -> None:
    assert refusal(schema(image=kind), DIGITS).startswith(message)


def test_a_number_is_no_tensor_whose_sizes_vary() -> None:
    assert "is wanted" in refusal(schema(x=pa.float32()), tensor(shape=(-1, -1)))
    assert "is wanted" in refusal(schema(x=pa.list_(pa.float32())), tensor(shape=(-1, -1)))


def test_times_are_refused_with_advice() -> None:
    for kind in (pa.timestamp("us"), pa.date32(), pa.duration("s")):
        assert "make numbers of its times first, such as seconds" in refusal(schema(x=kind), tensor())
    table = pa.RecordBatch.from_pydict({"x": [dt.datetime(2026, 1, 1)]})
    with pytest.raises(ColumnMismatch, match="seconds"):
        prepared(table, tensor())


def test_an_optional_input_may_be_missing() -> None:
    made = preparation(schema(x=pa.float32()), tensor(), tensor("gain", optional=True))
    assert made.columns == ("x",)


def test_a_parameter_belongs_into_the_package() -> None:
    message = refusal(schema(x=pa.float32(), sr=pa.int64()), tensor(), tensor("sr", "INT64", per_request=True))
    assert message.endswith("headrace models add FILE --set sr=VALUE")


def test_an_image_is_the_column_of_bytes() -> None:
    recipe = tensor("image", shape=(3, 8, 8), decode=ImageDecode(resize=(8, 8)))
    made = preparation(schema(id=pa.int64(), jpg=pa.binary()), recipe)
    assert made.columns == ("jpg",)
    assert "needs images: encoded ones (bytes), or paths of files" in refusal(schema(image=pa.int64()), recipe)


def test_images_may_be_tensors_already() -> None:
    recipe = tensor("image", shape=(3, 2, 2), decode=ImageDecode(resize=(2, 2)))
    table = pa.RecordBatch.from_pydict({"image": [[0.5] * 12]})
    assert tensors_of(prepared(table, recipe))["image"].shape == (1, 3, 2, 2)
