"""What many nodes read is in a product's file once, whatever recipe made it."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import helper, numpy_helper
from tests.compression.onnx_models import answers, context_of, model_of, random
from tests.compression.unrolled import STEPS, rows_of, unrolled, unrolled_package

from headrace.compression.conversion.openvino_ir import OpenVinoInt8, OpenVinoIR
from headrace.compression.conversion.tvm_library import TvmLibrary
from headrace.compression.export.onnx import OnnxExport
from headrace.compression.networks.network import Network
from headrace.compression.onnx_model.gemm import split_gemms
from headrace.compression.onnx_model.sharing import share_constants
from headrace.compression.quantization import DynamicInt8, HalfPrecision, StaticInt8
from headrace.compression.recipes.catalog import BLOCKS, parse_recipe
from headrace.compression.steps import PackageStep, StepContext

#: Every recipe that makes a package of a package and can be carried out here.
RECIPES = [name for name, block in BLOCKS.items() if block.of == "package" and block.runtime != "tensorrt"]

#: For operators that a recipe does nothing for.
WITHOUT_CONV = {name for name in RECIPES if name.startswith(("int8-dynamic", "int8-weights", "int4-weights"))}

CASES = [
    (name, operator)
    for name in RECIPES
    for operator in ("MatMul", "Transposed", "Gemm", "Conv")
    if not (operator == "Conv" and name in WITHOUT_CONV) and not (name == "tvm" and operator != "MatMul")
]


@pytest.mark.parametrize(("name", "operator"), CASES)
def test_the_file_of_a_product_is_not_larger_than_the_original(name: str, operator: str, tmp_path: Path) -> None:
    package = unrolled_package(operator, tmp_path)
    (step,) = parse_recipe(name, BLOCKS[name].runtime or "onnxruntime").steps
    assert isinstance(step, PackageStep)
    product = step.convert(package, context_of(tmp_path, rows_of(operator)))
    if name == "tvm":
        # A library holds code as well: for each of the steps, but not a weight.
        assert product.size_bytes < STEPS * 96 * 96 * 4
        return
    if name.startswith("openvino"):
        # Its graph is a text, of a thousand letters a node.
        assert (product.folder / "model.bin").stat().st_size <= package.size_bytes
        return
    # A fused node, or one with a layout for this processor, has attributes that plain ones haven't.
    spare = 128 * STEPS if name == "graph" else 0
    assert product.size_bytes <= package.size_bytes + spare


@pytest.mark.parametrize("name", [name for name in RECIPES if BLOCKS[name].runtime == "onnxruntime"])
def test_no_constant_is_in_a_product_twice(name: str, tmp_path: Path) -> None:
    package = unrolled_package("Gemm", tmp_path)
    (step,) = parse_recipe(name).steps
    assert isinstance(step, PackageStep)
    graph = onnx.load(step.convert(package, context_of(tmp_path, rows_of("Gemm"))).file).graph
    contents = Counter(
        (tensor.data_type, tuple(tensor.dims), numpy_helper.to_array(tensor).tobytes()) for tensor in graph.initializer
    )
    assert set(contents.values()) == {1}


def test_a_product_with_shared_weights_answers_as_its_source_did(tmp_path: Path) -> None:
    package, rows = unrolled_package("Gemm", tmp_path), rows_of("Gemm")
    want = answers(package, rows)["y"]
    for step in (StaticInt8(), DynamicInt8(), HalfPrecision()):
        have = answers(step.convert(package, context_of(tmp_path, rows)), rows)["y"]
        assert np.abs(want - have).max() < 0.15 * np.abs(want).max()


def test_layers_that_share_a_weight_are_left_in_float_together(tmp_path: Path) -> None:
    package = unrolled_package("MatMul", tmp_path)
    step = StaticInt8(sensitive_share=0.2).convert(package, context_of(tmp_path, rows_of("MatMul")))
    assert step.manifest.provenance["steps"][-1]["left_in_float"] == []


def test_gemms_that_share_a_weight_become_matmuls_that_do() -> None:
    model = unrolled("Gemm")
    split_gemms(model, {node.name for node in model.graph.node})
    assert {node.input[1] for node in model.graph.node if node.op_type == "MatMul"} == {"w_turned_times_0.5"}
    assert [tensor.name for tensor in model.graph.initializer] == ["b", "w_turned_times_0.5"]


def copies() -> onnx.ModelProto:
    """Make a graph with the same weight three times: one is an output, one an input with a default."""
    text = """g (float[rows,4] x, float[4,4] free) => (float[rows,4] y, float[4,4] kept) {
        a = MatMul (x, one)  b = MatMul (a, two)  c = MatMul (b, free)  y = MatMul (c, kept)
    }"""
    return model_of(text, dict.fromkeys(("one", "two", "free", "kept"), random(4, 4)))


def test_outputs_and_inputs_with_a_default_keep_their_names() -> None:
    model = copies()
    share_constants(model)
    assert [tensor.name for tensor in model.graph.initializer] == ["one", "free", "kept"]
    assert [node.input[1] for node in model.graph.node] == ["one", "one", "free", "kept"]


def test_what_differs_in_kind_shape_or_text_stays_apart() -> None:
    model = model_of("g (float[rows,2] x) => (float[rows,2] y) { y = Identity (x) }")
    kinds: list[tuple[tuple[int, ...], type[np.generic]]] = [
        ((2,), np.float32),
        ((1, 2), np.float32),
        ((2,), np.int32),
        ((2,), np.float16),
    ]
    arrays = [np.zeros(shape, kind) for shape, kind in kinds]
    model.graph.initializer.extend(numpy_helper.from_array(array, f"t{n}") for n, array in enumerate(arrays))
    for name, words in (("s0", [b"ab", b"c"]), ("s1", [b"a", b"bc"]), ("s2", [b"ab", b"c"])):
        model.graph.initializer.append(
            onnx.TensorProto(name=name, data_type=onnx.TensorProto.STRING, dims=[2], string_data=words)
        )
    share_constants(model)
    assert [tensor.name for tensor in model.graph.initializer] == ["t0", "t1", "t2", "t3", "s0", "s1"]


def test_branches_share_what_the_graph_around_them_holds_and_what_both_hold() -> None:
    weight = numpy_helper.from_array(random(4, 4), "w")

    def branch(name: str, own: str) -> onnx.GraphProto:
        tensor = onnx.TensorProto()
        tensor.CopyFrom(weight)
        tensor.name = own
        result = helper.make_tensor_value_info(f"{name}_y", onnx.TensorProto.FLOAT, None)
        return helper.make_graph([helper.make_node("MatMul", ["x", own], [f"{name}_y"])], name, [], [result], [tensor])

    model = model_of("g (float[rows,4] x, bool c) => (float[rows,4] z) { z = MatMul (x, w) }", {})
    model.graph.initializer.append(weight)
    either = helper.make_node("If", ["c"], ["unused"], then_branch=branch("then", "v"), else_branch=branch("else", "v"))
    model.graph.node.append(either)
    share_constants(model)
    inner = [attribute.g for attribute in model.graph.node[1].attribute]
    assert [list(graph.node[0].input) for graph in inner] == [["x", "w"], ["x", "w"]]
    assert [len(graph.initializer) for graph in inner] == [0, 0]

    twice = onnx.ModelProto()
    twice.CopyFrom(model)
    del twice.graph.initializer[:], twice.graph.node[0]
    for graph, name in zip((attribute.g for attribute in twice.graph.node[0].attribute), ("v", "w"), strict=True):
        graph.initializer.append(numpy_helper.from_array(random(4, 4), name))
        graph.node[0].input[1] = name
    share_constants(twice)
    assert [tensor.name for tensor in twice.graph.initializer] == ["v_shared"]
    inner = [attribute.g for attribute in twice.graph.node[0].attribute]
    assert [list(graph.node[0].input) for graph in inner] == [["x", "v_shared"]] * 2
    assert [len(graph.initializer) for graph in inner] == [0, 0]

    del model.graph.initializer[:], model.graph.node[0]
    for graph, values in zip((attribute.g for attribute in model.graph.node[0].attribute), (1.0, 2.0), strict=True):
        graph.initializer.append(numpy_helper.from_array(np.full((4, 4), values, np.float32), "v"))
        graph.node[0].input[1] = "v"
    share_constants(model)
    assert [len(attribute.g.initializer) for attribute in model.graph.node[0].attribute] == [1, 1]


def test_equal_nodes_over_constants_become_one() -> None:
    text = """g (float[rows,4] x) => (float[rows,4] y) {
        c = Constant <value = float {2}> ()  d = Constant <value = float {2}> ()  e = Constant <value = float {3}> ()
        t = Transpose <perm = [1, 0]> (w)  u = Transpose <perm = [1, 0]> (w)
        a = MatMul (x, t)  b = MatMul (a, u)  f = Mul (b, c)  h = Mul (f, d)  y = Mul (h, e)
    }"""
    model = model_of(text, {"w": random(4, 4)})
    share_constants(model)
    assert [node.op_type for node in model.graph.node] == [
        "Constant",
        "Constant",
        "Transpose",
        *["MatMul"] * 2,
        *["Mul"] * 3,
    ]
    onnx.checker.check_model(model)


def test_an_export_holds_tied_weights_once(digits_network: Network, context: StepContext) -> None:
    import torch
    from torch import nn

    class Tied(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.step = nn.Linear(64, 64)
            self.copied = nn.Linear(64, 64)
            self.copied.load_state_dict(self.step.state_dict())

        def forward(self, image: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
            h = image.flatten(1)
            for _ in range(6):
                h = torch.tanh(self.copied(self.step(h)))
            return h.argmax(1), h

    import dataclasses

    network = dataclasses.replace(digits_network, module=Tied().eval(), labels=())
    package = OnnxExport().export(network, context)
    assert package.size_bytes < 1.5 * 64 * 64 * 4


def test_openvino_keeps_shared_weights_shared(tmp_path: Path) -> None:
    package = unrolled_package("MatMul", tmp_path)
    for step in (OpenVinoIR(), OpenVinoInt8()):
        product = step.convert(package, context_of(tmp_path, rows_of("MatMul")))
        assert (product.folder / "model.bin").stat().st_size < 1.1 * 96 * 96 * 4


def test_a_tvm_library_can_be_made_of_shared_weights(tmp_path: Path) -> None:
    package = unrolled_package("MatMul", tmp_path)
    product = TvmLibrary().convert(package, context_of(tmp_path, rows_of("MatMul")))
    assert product.manifest.runtime == "tvm"
