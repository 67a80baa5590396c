from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import pytest
from tests.compression.onnx_models import bytes_of, context_of, model_of, package_of, random

from headrace.compression.errors import NotApplicable
from headrace.compression.quantization import LayerSensitivity, most_sensitive, sensitivity
from headrace.compression.steps import StepContext
from headrace.contracts import ModelPackage


def test_all_layers_of_the_digits_are_measured_most_sensitive_first(
    digits_package: ModelPackage, context: StepContext
) -> None:
    before = bytes_of(digits_package)
    found = sensitivity(digits_package, context)
    assert {layer.node for layer in found} == {"node_Conv_51", "node_Conv_53", "node_Conv_55", "node_linear"}
    noise = [layer.sqnr_db for layer in found]
    assert noise == sorted(noise)
    assert 40 < noise[0] < 100
    assert bytes_of(digits_package) == before


def test_a_layer_whose_inputs_have_outliers_is_the_most_sensitive(tmp_path: Path) -> None:
    weights = {name: random(16, 16, seed=seed, scale=0.25) for seed, name in enumerate("abc")}
    # One channel is a thousand times as large as the others, and then isn't used.
    spread = np.ones(16, np.float32)
    spread[3] = 1000
    weights["b"][3] = 0
    text = """g (float[rows,16] x) => (float[rows,16] y) {
        [first] h = MatMul(x, a) wide = Mul(h, spread) [hurt] i = MatMul(wide, b) [last] y = MatMul(i, c)
    }"""
    package = package_of(model_of(text, weights | {"spread": spread}), tmp_path)
    found = sensitivity(package, context_of(tmp_path, {"x": random(64, 16)}))
    assert [layer.weights for layer in found] == [256] * 3
    assert found[0].node == "hurt"


def test_the_number_of_layers_is_bounded_and_progress_is_shown(tmp_path: Path) -> None:
    names = [f"w{index}" for index in range(9)]
    nodes = " ".join(f"t{index + 1} = MatMul(t{index}, {name})" for index, name in enumerate(names))
    text = f"g (float[rows,4] t0) => (float[rows,4] t9) {{ {nodes} }}"
    package = package_of(model_of(text, {name: random(4, 4, seed=i) for i, name in enumerate(names)}), tmp_path)
    seen: list[tuple[int, int]] = []
    context = dataclasses.replace(
        context_of(tmp_path, {"t0": random(64, 4)}),
        progress=lambda done, of, what: seen.append((done, of)) if what.startswith("sensitivity") else None,
    )
    found = sensitivity(package, context, layers=3)
    assert len(found) == 3
    assert seen == [(0, 3), (1, 3), (2, 3)]


def test_a_model_that_only_gives_labels_is_measured_by_what_they_are_made_of(tmp_path: Path) -> None:
    text = "g (float[rows,8] x) => (int64[rows] label) { s = MatMul(x, w) label = ArgMax<axis=1, keepdims=0>(s) }"
    package = package_of(model_of(text, {"w": random(8, 4)}), tmp_path)
    (layer,) = sensitivity(package, context_of(tmp_path, {"x": random(64, 8)}))
    assert 20 < layer.sqnr_db < 80


def test_a_model_without_weights_has_nothing_to_measure(tmp_path: Path) -> None:
    package = package_of(model_of("g (float[rows,4] x) => (float[rows,4] y) { y = Relu(x) }"), tmp_path)
    with pytest.raises(NotApplicable, match="nothing to measure"):
        sensitivity(package, context_of(tmp_path, {"x": random(64, 4)}))


def test_the_most_sensitive_share_is_rounded_up() -> None:
    found = [LayerSensitivity(name, "Conv", 1, noise) for name, noise in (("a", 50.0), ("b", 20.0), ("c", 30.0))]
    assert most_sensitive(found, 0.5) == ("b", "c")
    assert most_sensitive(found, 0.1) == ("b",)
    assert most_sensitive(found, 0) == ()
