"""Options when a model is added, and what the package keeps of them."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Unpack

import numpy as np
import pytest
from tests.lifecycle.onnx_text import write
from tests.runtimes.conftest import HERE

from headrace.contracts import ModelDirectory, ModelPackage, PackageError
from headrace.lifecycle.packages.adding import PackageOptions, describe, notes_of
from headrace.lifecycle.packages.registry import add_model
from headrace.runtimes.loading import load_model

RELU = "g (float[n,4] x) => (float[n,4] y) { y = Relu(x) }"
MEAN = "g (float[n,4] x) => (float[n,4] y) <int64[1] a = {0}> { m = ReduceMean(x, a) y = Sub(x, m) }"
SCALED = "g (float[n,3] x, float[1] k) => (float[n,3] y) { y = Mul(x, k) }"
UNNAMED = "g (float[?,?,4] x) => (float[?,?,4] y) { y = Relu(x) }"


@pytest.fixture
def add(tmp_path: Path) -> Callable[..., ModelPackage]:
    def call(graph: str, **options: Unpack[PackageOptions]) -> ModelPackage:
        return add_model(write(tmp_path / "m.onnx", graph), ModelDirectory(tmp_path / "models"), **options)

    return call


def test_a_constant_is_set_in_the_package_and_no_request_holds_it(add: Callable[..., ModelPackage]) -> None:
    package = add(SCALED, constants={"k": 2.5})
    assert [spec.name for spec in package.manifest.inputs] == ["x"]
    assert package.manifest.constants[0].value == [2.5]
    model = load_model(package, "cpu", 1)
    assert model.infer({"x": np.ones((2, 3), np.float32)})["y"].tolist() == [[2.5] * 3] * 2
    model.close()


@pytest.mark.parametrize(
    ("constants", "message"),
    [
        ({"q": 1}, "--set names 'q', but the model's inputs are x, k"),
        ({"k": "fast"}, "must be FP32"),
        ({"k": [1, 2]}, r"--set gives 'k' the shape \[2\], but the model takes \[1\]"),
        ({"x": 7}, r"--set gives 'x' the shape \[3\], but the model takes \[n, 3\]"),
        ({"x": [[1, 2, 3]], "k": 1}, "every input is set"),
    ],
)
def test_constants_are_checked(add: Callable[..., ModelPackage], constants: dict[str, object], message: str) -> None:
    with pytest.raises(PackageError, match=message):
        add(SCALED, constants=constants)


def test_a_sample_that_the_model_refuses_is_an_error_that_names_it(
    add: Callable[..., ModelPackage], tmp_path: Path
) -> None:
    np.savez(tmp_path / "short.npz", x=np.ones((2, 1, 60), np.float32))
    weights = "float[1,1,300] w = {" + ", ".join(["1"] * 300) + "}"
    graph = f"g (float[n,1,t] x) => (float[n,1,u] y) <{weights}> {{ y = Conv(x, w) }}"
    with pytest.raises(PackageError, match=r"the model can't run the sample .*short\.npz: .*; give inputs"):
        add(graph, sample=tmp_path / "short.npz")


def test_rows_may_be_said_to_be_at_another_axis(add: Callable[..., ModelPackage]) -> None:
    package = add(UNNAMED, rows_at={"x": 1})
    assert [spec.describe() for spec in (*package.manifest.inputs, *package.manifest.outputs)] == [
        "x FP32 [?, rows, 4]",
        "y FP32 [?, rows, 4]",
    ]


def test_row_sizes_may_be_given_and_are_run(add: Callable[..., ModelPackage]) -> None:
    package = add(RELU, row_sizes=[8, 2])
    batching = package.manifest.batching
    assert (batching.row_sizes, batching.max_rows) == ((2, 8), 8)
    model = load_model(package, "cpu", 1)
    assert model.infer({"x": np.ones((5, 4), np.float32)})["y"].shape == (5, 4)
    model.close()


def test_row_sizes_that_the_model_does_not_run_are_refused(add: Callable[..., ModelPackage]) -> None:
    with pytest.raises(PackageError, match="--row-sizes asks for 8 rows, but the model runs exactly 4"):
        add("g (float[4,3] x) => (float[4,3] y) { y = Relu(x) }", row_sizes=[8])
    with pytest.raises(PackageError, match="no batch of 8 rows"):
        add("g (float[n,4] x) => (float[n,4] y) <int64[2] s = {4,4}> { y = Reshape(x, s) }", row_sizes=[8])


def test_requests_run_alone_if_a_person_says_so(add: Callable[..., ModelPackage]) -> None:
    package = add(RELU, independent_rows=False)
    assert not package.manifest.batching.independent_rows
    assert package.manifest.outputs[0].describe() == "y FP32 [rows, 4]"
    assert notes_of(package) == []


def test_requests_share_runs_if_a_person_says_so_and_the_trials_doubt_is_noted(
    add: Callable[..., ModelPackage],
) -> None:
    package = add(MEAN, independent_rows=True)
    assert package.manifest.batching.independent_rows
    (note,) = notes_of(package)
    assert "as you said, although the trial found that output 'y' of a row changes by" in note


def test_a_sample_must_hold_the_models_inputs(add: Callable[..., ModelPackage], tmp_path: Path) -> None:
    np.savez(tmp_path / "rows.npz", z=np.zeros((2, 4), np.float32))
    with pytest.raises(PackageError, match="the sample holds z, but the model takes x"):
        add(RELU, sample=tmp_path / "rows.npz")


@pytest.mark.parametrize("content", ["", "[1, 2]", '{"x": [[1, 2], [3]]}', '{"x": "text"}'])
def test_a_sample_that_can_not_be_read_is_named(add: Callable[..., ModelPackage], tmp_path: Path, content: str) -> None:
    (tmp_path / "rows.json").write_text(content)
    with pytest.raises(PackageError, match=r"rows\.json"):
        add(RELU, sample=tmp_path / "rows.json")


def test_a_sample_may_be_json(add: Callable[..., ModelPackage], tmp_path: Path) -> None:
    (tmp_path / "rows.json").write_text(json.dumps({"x": [[1, 2, 3, 4], [5, 6, 7, 8]]}))
    assert add(RELU, sample=tmp_path / "rows.json").manifest.batching.independent_rows


def test_large_outputs_are_stored_as_bytes_and_small_ones_readable(add: Callable[..., ModelPackage]) -> None:
    large = """g (float[n,64,64,3] x) => (float[n,64,64,3] y, float[n,1] s) <int64[2] c = {-1,1}, int64[3] a = {1,2,3}>
        { y = Relu(x) t = ReduceSum(x, a) s = Reshape(t, c) }"""
    assert add(large).manifest.store.outputs == "binary"
    assert add(large, keep=["s"]).manifest.store.outputs == "json"
    assert add(large, store="json").manifest.store.outputs == "json"
    assert add(RELU).manifest.store.outputs == "json"


def test_outputs_to_keep_must_exist(add: Callable[..., ModelPackage]) -> None:
    with pytest.raises(PackageError, match="--keep names 'z', but the model's outputs are y"):
        add(RELU, keep=["z"])


def test_only_kept_outputs_are_part_of_what_a_request_gets(add: Callable[..., ModelPackage]) -> None:
    package = add("g (float[n,4] x) => (float[n,4] y, float[n,4] z) { y = Relu(x) z = Neg(x) }", keep=["z"])
    assert [spec.name for spec in package.manifest.signature.outputs] == ["z"]


def test_what_the_file_leaves_open_is_learned_where_nothing_but_the_rows_varies(
    add: Callable[..., ModelPackage],
) -> None:
    assert (
        add("g (float[n,4] x) => (float[n,?] y) { y = Relu(x) }").manifest.outputs[0].describe() == "y FP32 [rows, 4]"
    )


def test_the_trial_is_on_record(add: Callable[..., ModelPackage]) -> None:
    trial = add(RELU).manifest.provenance["trial"]
    assert trial["verdict"] == "independent"
    assert trial["rows_compared"] > 50


def test_the_same_file_gives_the_same_package_again(add: Callable[..., ModelPackage]) -> None:
    first, second = (add(MEAN).manifest for _ in range(2))
    assert (first.inputs, first.outputs, first.batching) == (second.inputs, second.outputs, second.batching)


def test_a_package_may_be_made_outside_any_model_directory(tmp_path: Path) -> None:
    (tmp_path / "room").mkdir()
    package = describe(write(tmp_path / "m.onnx", RELU), tmp_path / "room", name="relu")
    assert (package.name, package.version) == ("relu", "0")


def test_nothing_is_printed_while_a_model_refuses_rows(
    add: Callable[..., ModelPackage], capfd: pytest.CaptureFixture[str]
) -> None:
    add("g (float[n,1,t] x) => (float[n,1,u] y) <float[1,1,40] w = {" + ",".join(["1"] * 40) + "}> { y = Conv(x, w) }")
    assert capfd.readouterr() == ("", "")


def test_an_input_that_has_one_value_only_is_set_in_the_package(add: Callable[..., ModelPackage]) -> None:
    package = add(
        "g (float[n,3] x, int64[0] axes) => (float[n,3] y) { y = ReduceSum <noop_with_empty_axes = 1> (x, axes) }"
    )
    assert [spec.describe() for spec in package.manifest.inputs] == ["x FP32 [rows, 3]"]
    assert package.manifest.constants[0].array().tolist() == []
    model = load_model(package, "cpu", 1)
    assert model.infer({"x": np.ones((2, 3), np.float32)})["y"].tolist() == [[1.0] * 3] * 2
    model.close()


def test_a_sequence_of_tensors_of_unknown_rank_takes_any(add: Callable[..., ModelPackage]) -> None:
    package = add("g (seq(float[]) x) => (seq(float[]) y) { y = Identity(x) }")
    (spec,) = package.manifest.inputs
    assert (spec.sequence, spec.any_shape) == (True, True)
    model = load_model(package, "cpu", 1)
    for shape in ((2, 3), (2, 1, 2, 3, 4)):
        assert model.infer({"x": np.ones(shape, np.float32)})["y"].shape == shape
    model.close()


def test_a_saved_model_in_the_folder_of_its_version_has_the_name_of_its_model(tmp_path: Path) -> None:
    folder = tmp_path / "counter" / "1"
    shutil.copytree(HERE / "recurrent_saved_model", folder)
    assert add_model(folder, ModelDirectory(tmp_path / "models")).name == "counter"


def test_no_sample_is_asked_for_where_answers_can_not_be_held(add: Callable[..., ModelPackage]) -> None:
    package = add("""
        g (float[3,2] x) => (seq(float) y) <int64[2] s = {1,2}> { y = SplitToSequence <axis = 0> (x, s) }
    """)
    (note,) = notes_of(package)
    assert "is a sequence of tensors of different shapes" in note
    assert note.endswith("each request runs alone")
    assert "--keep" not in note


def test_the_trial_leaves_the_log_of_onnx_runtime_as_quiet_as_the_runtime_made_it(tmp_path: Path) -> None:
    """Refusals are answers of a trial: nothing of them is printed."""
    graph = "g (int64[n,len] x) => (float[n,len,2] y) <float[3,2] w = {1,2,3,4,5,6}> { y = Gather(w, x) }"
    code = f"""if True:
        from pathlib import Path
        from headrace.contracts import ModelDirectory
        from headrace.lifecycle.packages.registry import add_model
        add_model(Path({str(write(tmp_path / "m.onnx", graph))!r}), ModelDirectory(Path({str(tmp_path / "models")!r})))
    """
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert (ran.stdout, ran.stderr) == ("", "")


def test_rows_that_no_output_answers_are_said_so_rather_than_asked_for_again(add: Callable[..., ModelPackage]) -> None:
    package = add("g (float[n,4] x) => (float[1,1] y) { y = ReduceSum(x) }", rows_at={"x": 0})
    assert not package.manifest.batching.independent_rows
    assert "no output has an entry for each row where --rows-at says" in notes_of(package)[0]
