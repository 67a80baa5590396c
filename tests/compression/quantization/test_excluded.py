"""Nodes that a step leaves out: named, by operator or by pattern; from the verbs, recipes and searches alike."""

from __future__ import annotations

from pathlib import Path

import pytest
from tests.compression.onnx_models import context_of, model_of, operators_of, package_of, random
from tests.compression.slow_model import quick_goal, slow_model_source

from headrace.compression import quantize
from headrace.compression.conversion.openvino_ir import OpenVinoInt8
from headrace.compression.data.dataset import Dataset
from headrace.compression.errors import CompressionError, NotApplicable
from headrace.compression.onnx_model.excluded import chosen_nodes
from headrace.compression.quantization import DynamicInt8, HalfPrecision, StaticInt8, WeightOnly
from headrace.compression.quantization.graph_optimization import OptimisedGraph
from headrace.compression.recipes.catalog import parse_recipe
from headrace.compression.search.search import Search
from headrace.compression.steps import PackageStep
from headrace.contracts import ModelPackage

THREE = "g (float[rows,8] x) => (float[rows,8] y) { a = MatMul (x, u)  b = MatMul (a, v)  y = MatMul (b, w) }"
NAMES = ("body/first", "body/second", "head[0]")


@pytest.fixture
def package(tmp_path: Path) -> ModelPackage:
    model = model_of(THREE, {"u": random(8, 8), "v": random(8, 8, seed=1), "w": random(8, 8, seed=2)})
    for node, name in zip(model.graph.node, NAMES, strict=True):
        node.name = name
    return package_of(model, tmp_path)


@pytest.mark.parametrize(
    ("exclude", "left"),
    [
        (("body/first",), {"body/first"}),
        (("body/*",), {"body/first", "body/second"}),
        (("head[0]",), {"head[0]"}),
        (("Mat*",), set(NAMES)),
        (("body/second", "head*"), {"body/second", "head[0]"}),
        ((), set()),
    ],
)
def test_nodes_are_named_or_meant_by_a_pattern_of_names_or_operators(
    package: ModelPackage, exclude: tuple[str, ...], left: set[str]
) -> None:
    import onnx

    assert set(NAMES) - chosen_nodes(onnx.load(package.file), exclude) == left


def test_what_the_model_has_not_is_told_with_what_it_has(package: ModelPackage, tmp_path: Path) -> None:
    context = context_of(tmp_path, {"x": random(64, 8)})
    with pytest.raises(CompressionError, match=r"named 'bodi/first' to exclude.* 'body/first'.*operators are MatMul"):
        StaticInt8(exclude=("bodi/first",)).convert(package, context)


@pytest.mark.parametrize("step", [StaticInt8(), DynamicInt8(), WeightOnly(), HalfPrecision()])
def test_every_step_leaves_them_in_float(package: ModelPackage, tmp_path: Path, step: PackageStep) -> None:
    rows = Dataset({"x": random(64, 8)})
    product = quantize(package, step, calibration=rows, folder=tmp_path / "work", exclude=["body/*"])
    record = product.manifest.provenance["steps"][-1]
    assert record["exclude"] == ["body/*"]
    assert record.get("layers", 1) == 1
    assert operators_of(product).count("MatMul") >= 2


def test_openvino_leaves_them_in_float(package: ModelPackage, tmp_path: Path) -> None:
    def rounded(exclude: tuple[str, ...]) -> int:
        context = context_of(tmp_path / str(len(exclude)), {"x": random(64, 8)})
        product = OpenVinoInt8(exclude=exclude).convert(package, context)
        return product.file.read_text("utf-8").count('type="FakeQuantize"')

    assert 0 < rounded(("body/*",)) < rounded(())


def test_a_step_on_the_whole_graph_refuses_to_leave_nodes_out(package: ModelPackage, tmp_path: Path) -> None:
    rows = Dataset({"x": random(64, 8)})
    with pytest.raises(CompressionError, match="OptimisedGraph works on the whole graph and can't leave nodes out"):
        quantize(package, OptimisedGraph(), calibration=rows, folder=tmp_path / "work", exclude=["body/*"])


def test_a_recipe_hands_them_to_the_steps_that_can() -> None:
    (step,) = parse_recipe("int8-static", "onnxruntime", ["a", "b*"]).steps
    assert step == StaticInt8(exclude=("a", "b*"))
    (step,) = parse_recipe("graph", "onnxruntime", ["a"]).steps
    assert step == OptimisedGraph()
    with pytest.raises(NotApplicable, match="qat-int8 can't leave layers out, which --exclude asks for"):
        parse_recipe("qat-int8", "onnxruntime", ["a"])


def test_a_search_keeps_attempts_with_other_nodes_left_out_apart(tmp_path: Path) -> None:
    source, data = slow_model_source(tmp_path)
    searches = {
        exclude: Search(source, data, quick_goal(source, data, exclude=exclude), tmp_path)
        for exclude in ((), ("layer0",))
    }
    assert searches[()].folder != searches["layer0",].folder
    found = searches["layer0",].try_recipes(["int8-dynamic"])
    assert found.record["exclude"] == ["layer0"]
    assert found.attempts[0].notes[0] == "an answer depends a little on the rows that share its batch"
    made = searches["layer0",].package_of(found.attempts[0])
    assert made.manifest.provenance["steps"][-1]["exclude"] == ["layer0"]


def test_a_search_refuses_what_the_model_has_not_before_anything_is_tried(tmp_path: Path) -> None:
    source, data = slow_model_source(tmp_path)
    with pytest.raises(CompressionError, match=r"neither a node nor an operator named 'layre0' .* 'layer0'"):
        Search(source, data, quick_goal(source, data, exclude=("layre0",)), tmp_path)
