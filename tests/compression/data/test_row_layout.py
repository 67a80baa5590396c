"""Models whose rows are not first in every tensor, or not alone: what is compressed all the same, what is refused."""

from __future__ import annotations

from functools import partial
from pathlib import Path

import msgspec
import numpy as np
import onnx
import pytest
from tests.compression.onnx_models import answers, context_of, model_of, random

from headrace.compression import sensitivity
from headrace.compression.benchmarking.compare import measure
from headrace.compression.benchmarking.profiler import profile, write_profile
from headrace.compression.conversion.openvino_ir import OpenVinoInt8, OpenVinoIR
from headrace.compression.data.dataset import Dataset
from headrace.compression.data.loading import read_dataset
from headrace.compression.data.row_layout import RowRuns, as_taken, rows_first
from headrace.compression.errors import CompressionError, DataError, NotApplicable
from headrace.compression.evaluation.prediction import predict
from headrace.compression.quantization import DynamicInt8, HalfPrecision, StaticInt8, WeightOnly
from headrace.compression.quantization.graph_optimization import OptimisedGraph
from headrace.compression.search.inputs import Request, open_source
from headrace.compression.steps import PackageStep
from headrace.contracts import ModelDirectory, ModelPackage, Tensors, TensorSpec, read_package
from headrace.contracts.package.manifest import (
    BatchingAdvice,
    Constant,
    Manifest,
    StoreAdvice,
    sha256_of,
    write_manifest,
)

STEPS: list[PackageStep] = [
    StaticInt8(),
    StaticInt8(sensitive_share=0.4),
    DynamicInt8(),
    WeightOnly(),
    HalfPrecision(),
    OptimisedGraph(),
]

#: A step of a recurrence: rows at axis 1 of the state.
RECURRENT = """g (float[rows,8] x, float[2,rows,8] h) => (float[rows,8] y, float[2,rows,8] h1) {
    a = MatMul (x, w)  u = Unsqueeze (a, first)  s = Add (h, u)  h1 = Tanh (s)  t = ReduceSum <keepdims = 0> (h1, first)
    y = MatMul (t, v)
}"""


def package_of(
    model: onnx.ModelProto,
    folder: Path,
    inputs: tuple[TensorSpec, ...],
    outputs: tuple[TensorSpec, ...],
    batching: BatchingAdvice | None = None,
    constants: tuple[Constant, ...] = (),
) -> ModelPackage:
    """Make a package that says what `headrace models add` finds out."""
    folder.mkdir(parents=True)
    onnx.save(model, folder / "model.onnx")
    manifest = Manifest(
        name="made",
        version="0",
        runtime="onnxruntime",
        file="model.onnx",
        sha256=sha256_of(folder / "model.onnx"),
        inputs=inputs,
        outputs=outputs,
        batching=batching or BatchingAdvice(),
        constants=constants,
    )
    write_manifest(folder, manifest)
    return read_package(folder)


def recurrent(folder: Path) -> ModelPackage:
    weights: Tensors = {"w": random(8, 8), "v": random(8, 8, seed=1), "first": np.array([0], np.int64)}
    state = partial(TensorSpec, datatype="FP32", shape=(2, 8), rows_at=1)
    return package_of(
        model_of(RECURRENT, weights),
        folder / "package",
        (TensorSpec(name="x", datatype="FP32", shape=(8,)), state(name="h")),
        (TensorSpec(name="y", datatype="FP32", shape=(8,)), state(name="h1")),
    )


def scaled(folder: Path) -> ModelPackage:
    """A model whose factor its package sets."""
    text = """g (float[rows,8] x, float[1] k) => (float[rows,8] y) {
        a = Mul (x, k)  b = MatMul (a, w)  c = Tanh (b)  y = MatMul (c, v)
    }"""
    spec = partial(TensorSpec, datatype="FP32", shape=(8,))
    return package_of(
        model_of(text, {"w": random(8, 8), "v": random(8, 8, seed=1)}),
        folder / "package",
        (spec(name="x"),),
        (spec(name="y"),),
        constants=(Constant(name="k", datatype="FP32", value=[3.0]),),
    )


def dependent(folder: Path) -> ModelPackage:
    """A model that takes the mean over its rows away."""
    text = """g (float[rows,8] x) => (float[rows,8] y) {
        m = ReduceMean <axes = [0], keepdims = 1> (x)  a = Sub (x, m)  b = Add (a, x)  c = MatMul (b, w)
        d = Tanh (c)  y = MatMul (d, v)
    }"""
    spec = partial(TensorSpec, datatype="FP32", shape=(8,))
    return package_of(
        model_of(text, {"w": random(8, 8), "v": random(8, 8, seed=1)}),
        folder / "package",
        (spec(name="x"),),
        (spec(name="y"),),
        BatchingAdvice(independent_rows=False),
    )


def fixed(folder: Path) -> ModelPackage:
    """A model of exactly four rows."""
    text = "g (float[4,8] x) => (float[4,8] y) { a = MatMul (x, w)  b = Tanh (a)  y = MatMul (b, v) }"
    spec = partial(TensorSpec, datatype="FP32", shape=(8,))
    return package_of(
        model_of(text, {"w": random(8, 8), "v": random(8, 8, seed=1)}),
        folder / "package",
        (spec(name="x"),),
        (spec(name="y"),),
        BatchingAdvice(row_sizes=(4,), max_rows=4),
    )


ROWS = {
    "recurrent": {"x": random(50, 8, seed=5), "h": random(50, 2, 8, seed=6)},
    "scaled": {"x": random(50, 8, seed=5)},
    "dependent": {"x": random(50, 8, seed=5)},
    "fixed": {"x": random(50, 8, seed=5)},
}
MAKERS = {"recurrent": recurrent, "scaled": scaled, "dependent": dependent, "fixed": fixed}


@pytest.mark.parametrize("step", STEPS, ids=lambda step: type(step).__name__)
@pytest.mark.parametrize("kind", MAKERS)
def test_products_of_every_kind_serve_as_their_source_does(kind: str, step: PackageStep, tmp_path: Path) -> None:
    if kind == "fixed" and isinstance(step, DynamicInt8):
        with pytest.raises(NotApplicable, match="a model that pads its batches can't be served with rows that depend"):
            step.convert(fixed(tmp_path), context_of(tmp_path, ROWS[kind]))
        return
    package, rows = MAKERS[kind](tmp_path), ROWS[kind]
    product = step.convert(package, context_of(tmp_path, rows))
    assert product.manifest.signature == package.manifest.signature
    assert product.manifest.constants == package.manifest.constants
    # Rows that share a range with an extreme one are served alone.
    apart = package.manifest.batching.independent_rows and not isinstance(step, DynamicInt8)
    assert product.manifest.batching.independent_rows is apart
    data = Dataset(rows)
    want, have = (predict(each, data, threads=1) for each in (package, product))
    for name, array in want.items():
        assert array.shape[0] == 50
        assert np.abs(array - have[name]).max() < 0.1 * np.abs(array).max()


def test_answers_are_those_of_the_model_in_its_own_layout(tmp_path: Path) -> None:
    package, rows = recurrent(tmp_path), ROWS["recurrent"]
    found = predict(package, Dataset(rows), threads=1, batch_rows=7)
    whole = answers(package, {"x": rows["x"], "h": np.ascontiguousarray(np.moveaxis(rows["h"], 0, 1))})
    assert np.allclose(found["y"], whole["y"], atol=1e-5)
    assert np.allclose(found["h1"], np.moveaxis(whole["h1"], 1, 0), atol=1e-5)


def test_rows_that_depend_on_each_other_are_answered_one_by_one(tmp_path: Path) -> None:
    package, rows = dependent(tmp_path), ROWS["dependent"]
    found = predict(package, Dataset(rows), threads=1)["y"]
    alone = np.concatenate([answers(package, {"x": rows["x"][at : at + 1]})["y"] for at in range(50)])
    assert np.allclose(found, alone, atol=1e-5)


@pytest.mark.parametrize("kind", MAKERS)
def test_layers_of_every_kind_are_looked_into(kind: str, tmp_path: Path) -> None:
    assert sensitivity(MAKERS[kind](tmp_path), context_of(tmp_path, ROWS[kind]))


@pytest.mark.parametrize("step", [OpenVinoIR(), OpenVinoInt8()], ids=lambda step: type(step).__name__)
@pytest.mark.parametrize("kind", MAKERS)
def test_openvino_serves_every_kind(kind: str, step: PackageStep, tmp_path: Path) -> None:
    package, rows = MAKERS[kind](tmp_path), ROWS[kind]
    product = step.convert(package, context_of(tmp_path, rows))
    assert product.manifest.constants == ()
    want, have = (predict(each, Dataset(rows), threads=1)["y"] for each in (package, product))
    # NNCF cuts off more than others do.
    assert np.abs(want - have).mean() < 0.1 * np.abs(want).max()


@pytest.mark.parametrize("kind", MAKERS)
def test_every_kind_is_measured_and_profiled(kind: str, tmp_path: Path) -> None:
    package = MAKERS[kind](tmp_path)
    sizes = (4,) if kind == "fixed" else (1, 3)
    inputs = as_taken(package.manifest.inputs, ROWS[kind])
    measured = measure(package, package, inputs=inputs, row_sizes=sizes, seconds=0)
    assert [figures.rows for figures in measured.rows] == list(sizes)
    found = profile(package, rows=sizes, threads=(1,), seconds=0)
    assert [point.rows for point in found.points] == list(sizes)
    assert any("each request runs alone" in note for note in found.notes) == (kind == "dependent")
    write_profile(package, found)


def test_a_model_without_rows_is_profiled_as_it_is(tmp_path: Path) -> None:
    package = without_rows(tmp_path)
    assert [point.rows for point in profile(package, threads=(1,), seconds=0).points] == [1]
    with pytest.raises(CompressionError, match=r"takes no rows: x FP32 \[4\] is given whole, once a request"):
        profile(package, rows=(1, 8), threads=(1,), seconds=0)


def without_rows(folder: Path) -> ModelPackage:
    model = model_of("g (float[4] x) => (float[4] y) { y = Relu (x) }")
    specs = [TensorSpec(name=name, datatype="FP32", shape=(4,), per_request=True) for name in "xy"]
    return package_of(model, folder / "package", (specs[0],), (specs[1],))


def with_parameter(folder: Path) -> ModelPackage:
    """A model with a factor that each request gives once."""
    package = scaled(folder)
    parameter = TensorSpec(name="k", datatype="FP32", shape=(1,), per_request=True)
    inputs = (*package.manifest.inputs, parameter)
    write_manifest(package.folder, msgspec.structs.replace(package.manifest, inputs=inputs, constants=()))
    return read_package(package.folder)


@pytest.mark.parametrize("step", [*STEPS, OpenVinoIR()], ids=lambda step: type(step).__name__)
def test_inputs_without_rows_are_refused_by_name_with_a_remedy(step: PackageStep, tmp_path: Path) -> None:
    package = with_parameter(tmp_path)
    said = r"input 'k' is given whole, once a request, .*headrace models add FILE --set k=VALUE"
    with pytest.raises(NotApplicable, match=said):
        step.convert(package, context_of(tmp_path, ROWS["scaled"]))
    request = Request(str(package.folder), tmp_path / "missing.npz")
    with pytest.raises(NotApplicable, match=said):
        open_source(request, ModelDirectory(tmp_path), tmp_path / "work", seed=0, threads=1)
    np.savez(tmp_path / "rows.npz", x=random(50, 8))
    with pytest.raises(DataError, match=said):
        read_dataset(tmp_path / "rows.npz", package.manifest.inputs, None)
    assert profile(package, rows=(1, 3), threads=(1,), seconds=0).points


def test_a_model_without_any_rows_or_of_sequences_can_not_be_compressed(tmp_path: Path) -> None:
    context = context_of(tmp_path, ROWS["scaled"])
    with pytest.raises(NotApplicable, match="made 0 has no rows: input 'x' is given whole"):
        StaticInt8().convert(without_rows(tmp_path / "whole"), context)
    package = scaled(tmp_path)
    (spec,), (out,) = package.manifest.inputs, package.manifest.outputs
    sequence = msgspec.structs.replace(spec, name="s", shape=(-1, 8), per_request=True, sequence=True)
    write_manifest(package.folder, msgspec.structs.replace(package.manifest, inputs=(spec, sequence)))
    with pytest.raises(NotApplicable, match="input 's' is a sequence, so that rows of a file can't hold it"):
        StaticInt8().convert(read_package(package.folder), context)
    whole = msgspec.structs.replace(out, per_request=True)
    write_manifest(package.folder, msgspec.structs.replace(package.manifest, outputs=(whole,)))
    with pytest.raises(NotApplicable, match=r"output 'y' of made 0 has no rows.*\[store\] keep"):
        StaticInt8().convert(read_package(package.folder), context)


def test_outputs_that_are_not_kept_are_not_asked_for(tmp_path: Path) -> None:
    package = recurrent(tmp_path)
    first, second = package.manifest.outputs
    outputs = (first, msgspec.structs.replace(second, per_request=True, rows_at=0, shape=(2, -1, 8)))
    kept = msgspec.structs.replace(package.manifest, outputs=outputs, store=StoreAdvice(keep=("y",)))
    write_manifest(package.folder, kept)
    package = read_package(package.folder)
    product = StaticInt8().convert(package, context_of(tmp_path, ROWS["recurrent"]))
    assert list(predict(product, Dataset(ROWS["recurrent"]), threads=1)) == ["y"]


def test_a_frozen_number_of_rows_that_the_package_does_not_tell_of_is_refused(tmp_path: Path) -> None:
    package = fixed(tmp_path)
    write_manifest(package.folder, msgspec.structs.replace(package.manifest, batching=BatchingAdvice()))
    with pytest.raises(NotApplicable, match=r"'x' .* frozen batch dimension of 4, which the package doesn't tell of"):
        StaticInt8().convert(read_package(package.folder), context_of(tmp_path, ROWS["fixed"]))


def test_optional_inputs_may_be_left_out_of_the_rows(tmp_path: Path) -> None:
    inputs = (
        TensorSpec(name="x", datatype="FP32", shape=(4,)),
        TensorSpec(name="mask", datatype="FP32", shape=(4,), optional=True),
    )
    np.savez(tmp_path / "rows.npz", x=random(50, 4))
    assert list(read_dataset(tmp_path / "rows.npz", inputs, None).inputs) == ["x"]
    np.savez(tmp_path / "rows.npz", x=random(50, 4), mask=random(50, 4))
    assert list(read_dataset(tmp_path / "rows.npz", inputs, None).inputs) == ["x", "mask"]


def test_rows_are_moved_there_and_back() -> None:
    specs = (TensorSpec(name="h", datatype="FP32", shape=(2, 3), rows_at=1),)
    rows = {"h": random(5, 2, 3)}
    taken = as_taken(specs, rows)
    assert taken["h"].shape == (2, 5, 3)
    assert np.array_equal(rows_first(specs, taken)["h"], rows["h"])
    pieces = list(RowRuns(rows, specs, 4, fixed=True).runs())
    assert [piece["h"].shape for piece in pieces] == [(2, 4, 3)] * 2
    assert np.array_equal(pieces[1]["h"][:, 3], rows["h"][4])
