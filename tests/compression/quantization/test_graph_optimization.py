from __future__ import annotations

import importlib.util
from pathlib import Path

import numpy as np
import pytest
from tests.compression.onnx_models import answers, bytes_of, context_of, model_of, operators_of, package_of, random

from headrace.compression.errors import CompressionError, MissingLibrary
from headrace.compression.quantization.graph_optimization import OptimisedGraph, largest_gap
from headrace.compression.steps import StepContext
from headrace.contracts import ModelPackage

RESIDUAL = """g (float[rows,6,32] x) => (float[rows,6,32] y) {
    h = MatMul(x, w) a = Add(h, x) i = Identity(a) y = LayerNormalization<axis=-1>(i, gain, shift)
}"""


@pytest.fixture
def residual(tmp_path: Path) -> ModelPackage:
    constants = {"w": random(32, 32), "gain": np.ones(32, np.float32), "shift": np.zeros(32, np.float32)}
    return package_of(model_of(RESIDUAL, constants), tmp_path)


@pytest.mark.parametrize("step", [OptimisedGraph(), OptimisedGraph(level="extended", simplify=False)])
def test_an_optimised_graph_gives_the_same_answers(
    digits_package: ModelPackage, context: StepContext, step: OptimisedGraph
) -> None:
    before = bytes_of(digits_package)
    product = step.convert(digits_package, context)
    product.verify()
    record = product.manifest.provenance["steps"][-1]
    assert record["level"] == step.level
    assert record["operators"] < record["operators_before"]
    assert record["largest_difference"] < 1e-4
    want, have = (answers(package, context.data.test.inputs) for package in (digits_package, product))
    assert np.array_equal(want["label"], have["label"])
    assert np.allclose(want["scores"], have["scores"], atol=1e-5)
    assert bytes_of(digits_package) == before


def test_layer_norms_stay_apart_unless_asked_for(residual: ModelPackage, tmp_path: Path) -> None:
    context = context_of(tmp_path, {"x": random(64, 6, 32)})
    assert "LayerNormalization" in operators_of(OptimisedGraph().convert(residual, context))
    fused = OptimisedGraph(keep_layer_norms=False).convert(residual, context)
    assert "SkipLayerNormalization" in operators_of(fused)


def test_nothing_but_the_package_is_left_in_its_folder(residual: ModelPackage, tmp_path: Path) -> None:
    product = OptimisedGraph().convert(residual, context_of(tmp_path, {"x": random(64, 6, 32)}))
    assert sorted(bytes_of(product)) == ["model.onnx", "model.toml"]


def test_other_answers_are_refused() -> None:
    scores = {"label": np.array([1, 2]), "score": np.array([0.5, np.nan], np.float32)}
    assert largest_gap(scores, scores) == 0
    with pytest.raises(CompressionError, match="another 'label'"):
        largest_gap(scores, {**scores, "label": np.array([1, 3])})
    with pytest.raises(CompressionError, match=r"'score' by 0\.1"):
        largest_gap(scores, {**scores, "score": np.array([0.6, np.nan], np.float32)})


def test_a_missing_library_names_its_extra(
    residual: ModelPackage, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name == "onnxslim" else found(name))
    with pytest.raises(MissingLibrary, match=r"headrace\[quantize\]"):
        OptimisedGraph().convert(residual, context_of(tmp_path, {"x": random(64, 6, 32)}))
