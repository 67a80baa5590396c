"""Where a library's quantizer fails, another way is tried; and if none is left, it is said whose fault that is."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import numpy_helper
from tests.compression.onnx_models import answers, context_of, model_of, package_of, random

from headrace.compression.errors import CompressionError, NotApplicable
from headrace.compression.onnx_model import preparation
from headrace.compression.onnx_model.excluded import advice
from headrace.compression.onnx_model.failure_messages import failed_node, failure
from headrace.compression.onnx_model.gemm import flatten_biases
from headrace.compression.quantization import DynamicInt8, HalfPrecision, StaticInt8
from headrace.compression.quantization.graph_optimization import OptimisedGraph
from headrace.contracts import ModelPackage

#: A bias of two dimensions, as jax and others write it: with a scale for each channel, ONNX Runtime's quantizer fails.
ROW_BIAS = "g (float[rows,8] x) => (float[rows,4] y) { m = MatMul (x, w)  y = Add (m, b) }"

#: A weight of three dimensions: int8 with a scale for each channel is made, and then ONNX Runtime can't run it.
DEEP_WEIGHT = "g (float[rows,2,8] x) => (float[rows,2,8] y) { m = MatMul (x, w)  y = Tanh (m) }"


def step_of(package: ModelPackage) -> dict[str, Any]:
    return dict(package.manifest.provenance["steps"][-1])


@pytest.mark.parametrize("shape", [(1, 4), (4,), (1,), (1, 1), ()])
def test_biases_of_any_form_are_quantized_per_channel(tmp_path: Path, shape: tuple[int, ...]) -> None:
    text = "g (float[rows,8] x) => (float[rows,4] y) { y = Gemm <transB = 1> (x, w, b) }"
    package = package_of(model_of(text, {"w": random(4, 8), "b": np.float32(3) + random(*shape)}), tmp_path)
    rows = {"x": random(64, 8)}
    product = StaticInt8().convert(package, context_of(tmp_path, rows))
    assert step_of(product)["per_channel"]
    want, have = answers(package, rows)["y"], answers(product, rows)["y"]
    assert np.abs(want - have).max() < 0.05 * np.abs(want).max()


def test_a_bias_for_every_row_is_left_as_it_is() -> None:
    model = model_of(
        "g (float[3,8] x) => (float[3,4] y) { y = Gemm (x, w, b) }", {"w": random(8, 4), "b": random(3, 4)}
    )
    flatten_biases(model)
    assert model.graph.node[0].input[2] == "b"


def test_where_the_quantizer_fails_per_channel_it_is_done_per_tensor(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(preparation, "flatten_biases", lambda model: None)
    package = package_of(model_of(ROW_BIAS, {"w": random(8, 4), "b": random(1, 4)}), tmp_path)
    step = step_of(StaticInt8().convert(package, context_of(tmp_path, {"x": random(64, 8)})))
    assert not step["per_channel"]
    assert step["notes"] == ["per tensor, since per channel failed"]
    failed = step["per_channel_failed"]
    assert failed.startswith("onnxruntime 1.")
    assert (
        "can't quantize this model per channel, which is no fault of the model's: it fails at Gemm 'MatMul_0" in failed
    )


@pytest.mark.parametrize("step", [StaticInt8(), DynamicInt8()])
def test_what_fails_per_channel_only_when_it_runs_is_done_per_tensor(
    tmp_path: Path, step: StaticInt8 | DynamicInt8
) -> None:
    package = package_of(model_of(DEEP_WEIGHT, {"w": random(1, 8, 8)}), tmp_path)
    rows = {"x": random(64, 2, 8)}
    product = step.convert(package, context_of(tmp_path, rows))
    assert not step_of(product)["per_channel"]
    assert "the compressed model fails" in step_of(product)["per_channel_failed"]
    assert np.abs(answers(package, rows)["y"] - answers(product, rows)["y"]).max() < 0.1


def test_a_model_that_can_not_be_quantized_either_way_is_told_whose_fault_it_is_and_what_helps(tmp_path: Path) -> None:
    weight = random(8, 8)
    weight[0, 0] = np.nan
    text = """g (float[rows,8] x) => (float[rows,8] y) {
        m = MatMul (x, w)  n = IsNaN (m)  z = Cast <to = 1> (n)  y = MatMul (z, v)
    }"""
    package = package_of(model_of(text, {"w": weight, "v": random(8, 8)}), tmp_path)
    context = context_of(tmp_path, {"x": random(64, 8)})
    with pytest.raises(CompressionError) as refused:
        DynamicInt8().convert(package, context)
    said = refused.value.message
    assert "onnxruntime 1." in said
    assert (
        "per channel or per tensor, since 'w' of the model holds NaN or infinity: it fails at MatMul 'MatMul_0'" in said
    )
    assert "leave it out with --exclude MatMul_0, or try another recipe" in said
    assert "\n" not in said
    assert step_of(DynamicInt8(exclude=("MatMul_0",)).convert(package, context))["layers"] == 1
    with pytest.raises(CompressionError, match=r"infinity in 'm' .* with --exclude MatMul_0, or leave out such rows"):
        StaticInt8().convert(package, context)
    assert step_of(StaticInt8(exclude=("MatMul_0",)).convert(package, context))["layers"] == 1


def test_infinity_that_no_int8_layer_touches_is_no_hindrance(tmp_path: Path) -> None:
    text = """g (float[rows,8] x) => (float[rows,8] y) {
        m = MatMul (x, w)  masked = Where (never, m, low)  p = Softmax (masked)  q = MatMul (p, w)  y = Add (q, m)
    }"""
    never = np.array([[True] * 7 + [False]])
    package = package_of(
        model_of(text, {"w": random(8, 8), "never": never, "low": np.full((1, 8), -np.inf, np.float32)}), tmp_path
    )
    for step in (StaticInt8(), HalfPrecision()):
        step.convert(package, context_of(tmp_path, {"x": random(64, 8)})).verify()


def test_the_node_is_found_by_what_the_library_held_or_by_its_words() -> None:
    model = model_of(
        "g (float[rows,8] x) => (float[rows,8] y) { m = MatMul (x, w)  y = Tanh (m) }", {"w": random(8, 8)}
    )
    for node, name in zip(model.graph.node, ("first", "second"), strict=True):
        node.name = name
    found = failed_node(RuntimeError("Non-zero status code while running Tanh node. Name:'second_quant' Status"), model)
    assert found is not None
    assert found.name == "second"
    library = {"__name__": "library"}
    exec(compile("def work(tensor_name): raise KeyError('?')", "library.py", "exec"), library)
    with pytest.raises(KeyError) as raised:
        library["work"]("w")  # type: ignore[operator]
    assert "it fails at MatMul 'first' (KeyError" in failure("onnxruntime", "do it", raised.value, model)
    said = failure("a-library", "do it", ValueError("of all sorts"), model)
    assert said.startswith(
        "a-library can't do it, which is no fault of the model's: ValueError: of all sorts; try another"
    )


def test_a_name_is_advised_as_a_shell_takes_it() -> None:
    assert advice(["a", "b/c"]) == "--exclude a,b/c"
    assert advice(["with space", "with,comma"]) == "--exclude 'with space,with?comma'"


def test_where_onnxslim_fails_onnx_runtime_alone_optimises(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import onnxslim

    def slim(_model: onnx.ModelProto) -> onnx.ModelProto:
        raise KeyError("a bug of onnxslim's")

    monkeypatch.setattr(onnxslim, "slim", slim)
    package = package_of(model_of(ROW_BIAS, {"w": random(8, 4), "b": random(1, 4)}), tmp_path)
    step = step_of(OptimisedGraph().convert(package, context_of(tmp_path, {"x": random(64, 8)})))
    assert not step["simplify"]
    assert "onnxslim 0." in step["simplify_failed"]


def test_weights_that_are_nodes_are_found_by_every_step(tmp_path: Path) -> None:
    model = model_of("g (float[rows,8] x) => (float[rows,8] y) { y = MatMul (x, w) }")
    value = numpy_helper.from_array(random(8, 8), "value")
    model.graph.node.insert(0, onnx.helper.make_node("Constant", [], ["w"], value=value))
    package = package_of(model, tmp_path)
    for step in (HalfPrecision(), StaticInt8()):
        step.convert(package, context_of(tmp_path, {"x": random(64, 8)})).verify()


def test_rows_of_minus_one_are_rows_that_vary(tmp_path: Path) -> None:
    model = model_of("g (float[rows,8] x) => (float[rows,8] y) { y = MatMul (x, w) }", {"w": random(8, 8)})
    for value in (*model.graph.input, *model.graph.output):
        value.type.tensor_type.shape.dim[0].dim_value = -1
    StaticInt8().convert(package_of(model, tmp_path), context_of(tmp_path, {"x": random(64, 8)})).verify()


def test_a_product_whose_rows_depend_on_their_company_says_so(tmp_path: Path) -> None:
    package = package_of(model_of(ROW_BIAS, {"w": random(8, 4), "b": random(1, 4)}), tmp_path)
    context = context_of(tmp_path, {"x": random(64, 8)})
    dynamic = DynamicInt8().convert(package, context)
    assert step_of(dynamic)["batch_dependent"]
    assert step_of(dynamic)["notes"][0] == "an answer depends a little on the rows that share its batch"
    assert step_of(OptimisedGraph().convert(dynamic, context))["batch_dependent"]
    assert "batch_dependent" not in step_of(StaticInt8().convert(package, context))


@pytest.mark.parametrize("step", [StaticInt8(sensitive_share=0.4), DynamicInt8(sensitive_share=0.4)])
def test_when_every_layer_is_a_sensitive_one_nothing_is_left_to_do(
    tmp_path: Path, step: StaticInt8 | DynamicInt8
) -> None:
    package = package_of(model_of(ROW_BIAS, {"w": random(8, 4), "b": random(1, 4)}), tmp_path)
    with pytest.raises(NotApplicable, match="the most sensitive 40% of 1 layers are all of them"):
        step.convert(package, context_of(tmp_path, {"x": random(64, 8)}))
