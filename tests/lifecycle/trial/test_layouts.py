"""Where rows may be, read from what a file declares; nothing runs here."""

from __future__ import annotations

import pytest

from headrace.contracts import PackageError
from headrace.lifecycle.packages.declared import DeclaredModel, DeclaredTensor
from headrace.lifecycle.packages.trial.layouts import Layout, candidates

Dims = tuple[int | str | None, ...] | None


def model(inputs: dict[str, Dims], outputs: dict[str, Dims] | None = None, **more: bool) -> DeclaredModel:
    return DeclaredModel(
        runtime="onnxruntime",
        file="model.onnx",
        inputs=tuple(DeclaredTensor(name=name, datatype="FP32", dims=dims, **more) for name, dims in inputs.items()),
        outputs=tuple(
            DeclaredTensor(name=name, datatype="FP32", dims=dims) for name, dims in (outputs or {"y": None}).items()
        ),
    )


def axes(layouts: list[Layout]) -> list[dict[str, int | None]]:
    return [layout.axes for layout in layouts]


def test_a_batch_dimension_is_tried_first_and_no_rows_last() -> None:
    layouts = candidates(model({"x": ("batch", 4)}))
    assert (layouts[0].axes, layouts[0].symbol) == ({"x": 0}, "batch")
    assert layouts[-1].axes == {"x": None}


def test_a_batch_is_preferred_to_the_first_dimension() -> None:
    assert candidates(model({"x": ("time", "batch", 4)}))[0].axes == {"x": 1}


def test_each_input_has_its_rows_where_the_symbol_is() -> None:
    assert candidates(model({"x": ("batch", 8), "h": (2, "batch", 8)}))[0].axes == {"x": 0, "h": 1}


def test_inputs_without_the_symbol_are_parameters() -> None:
    layouts = candidates(model({"x": ("n", 3), "k": (1,), "s": (), "table": (5, 3)}))
    assert layouts[0].axes == {"x": 0, "k": None, "s": None, "table": None}


def test_an_unnamed_first_dimension_counts_as_the_rows() -> None:
    assert candidates(model({"x": ("batch", 8), "m": (None, 8)}))[0].axes == {"x": 0, "m": 0}


@pytest.mark.parametrize("names", [("unk__1", "unk__2"), (None, None), ("a", "b")])
def test_first_dimensions_with_names_of_their_own_are_tried_together(names: tuple[str | None, str | None]) -> None:
    layouts = candidates(model({"x": (names[0], 4), "z": (names[1], 5)}))
    assert {"x": 0, "z": 0} in axes(layouts)


def test_the_state_of_a_recurrent_model_without_names_has_its_layers_first() -> None:
    layouts = candidates(model({"input": (None, None), "state": (2, None, 128), "sr": ()}))
    assert {"input": 0, "state": 1, "sr": None} in axes(layouts)


def test_named_dimensions_of_different_names_are_not_mixed_across_axes() -> None:
    layouts = candidates(model({"a": (3, "m", 3), "b": ("length", "m", 1)}))
    assert {"a": 1, "b": 0} not in axes(layouts)
    assert {"a": 1, "b": 1} in axes(layouts)


def test_where_a_batch_is_named_no_later_axis_is_tried() -> None:
    assert axes(candidates(model({"x": ("batch", "length", "width")}))) == [{"x": 0}, {"x": None}]


def test_a_fixed_batch_runs_that_many_rows() -> None:
    layouts = candidates(model({"x": (4, 3), "z": (4, 2, 2), "k": (1,)}))
    assert (layouts[0].axes, layouts[0].row_sizes) == ({"x": 0, "z": 0, "k": None}, (4,))


def test_a_fixed_batch_of_one_counts_only_if_the_outputs_have_it_too() -> None:
    image: dict[str, Dims] = {"x": (1, 3, 8, 8)}
    assert candidates(model(image, {"y": (1, 10)}))[0].row_sizes == (1,)
    assert axes(candidates(model(image, {"y": ("boxes", 6)}))) == [{"x": None}]
    assert axes(candidates(model(image, {"y": (10,)}))) == [{"x": None}]


def test_a_fixed_batch_is_preferred_to_a_length_at_another_axis() -> None:
    layouts = candidates(model({"x": (1, 80, "length")}, {"y": (1, 5)}))
    assert [layout.axes["x"] for layout in layouts[:2]] == [0, 2]


def test_a_vector_of_fixed_length_has_no_rows() -> None:
    assert axes(candidates(model({"x": (4,)}, {"y": (4,)}))) == [{"x": None}]


def test_the_users_row_sizes_apply_where_rows_are_free() -> None:
    layouts = candidates(model({"x": ("n", 4)}), row_sizes=[8, 2])
    assert layouts[0].row_sizes == (2, 8)
    assert layouts[-1].row_sizes == ()


def test_a_given_axis_is_the_only_one_tried_and_its_symbol_finds_the_others() -> None:
    layouts = candidates(model({"x": ("a", "b"), "z": (3, "b")}), rows_at={"x": 1})
    assert axes(layouts) == [{"x": 1, "z": 1}, {"x": None, "z": None}]


def test_a_tensor_that_is_given_rows_must_exist_and_have_that_axis() -> None:
    declared = model({"x": ("n", 4), "k": ()})
    with pytest.raises(PackageError, match="--rows-at names 'q', but the model's tensors are x, k, y"):
        candidates(declared, rows_at={"q": 0})
    with pytest.raises(PackageError, match="'x' has the dimensions 0 to 1"):
        candidates(declared, rows_at={"x": 2})
    with pytest.raises(PackageError, match="'k' is a single value"):
        candidates(declared, rows_at={"k": 0})


def test_an_input_of_unknown_rank_is_tried_as_a_table_and_as_others() -> None:
    layouts = candidates(model({"x": None}))
    assert [len(layout.dims["x"]) for layout in layouts if layout.axes == {"x": 0}] == [2, 1, 3, 4]


def test_a_list_of_tensors_has_no_rows() -> None:
    assert axes(candidates(model({"x": ("n", 4)}, sequence=True))) == [{"x": None}]


def test_besides_the_rows_their_name_stands_for_any_size() -> None:
    (layout, *_) = candidates(model({"x": ("N", "N", "N", 3)}))
    assert layout.row_dims("x") == ("x[1]", "x[2]", 3)
