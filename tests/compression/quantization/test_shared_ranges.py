"""Products whose activations share a range: whether their requests may share a run is measured."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from tests.compression.onnx_models import answers, context_of, model_of, package_of, random

from headrace.compression.quantization import DynamicInt8, StaticInt8
from headrace.contracts import ModelPackage

LINEAR = """g (float[rows,16] x) => (float[rows,4] y) {
    h = MatMul(x, w)
    r = Relu(h)
    y = MatMul(r, v)
}"""

TOKENS = """g (int64[rows,length] ids) => (float[rows,length,8] y) {
    e = Gather(table, ids)
    n = LayerNormalization<axis=-1>(e, gain, shift)
    y = MatMul(n, w)
}"""


def linear(folder: Path) -> ModelPackage:
    return package_of(model_of(LINEAR, {"w": random(16, 32), "v": random(32, 4, seed=1)}), folder)


def test_numbers_beside_an_extreme_row_lose_their_precision_so_each_request_runs_alone(tmp_path: Path) -> None:
    x = random(64, 16)
    product = DynamicInt8().convert(linear(tmp_path), context_of(tmp_path, {"x": x}))
    step = product.manifest.provenance["steps"][-1]
    assert product.manifest.batching.independent_rows is False
    assert any(note.startswith("each request runs alone: output 'y' changes by") for note in step["notes"])
    alone = answers(product, {"x": x[:1]})["y"]
    beside = answers(product, {"x": np.concatenate([x[:1], 100 * x[1:2]])})["y"][:1]
    assert np.abs(alone - beside).max() > 0.1 * np.abs(alone).max()


def test_tokens_whose_activations_are_normalized_go_on_sharing_runs(tmp_path: Path) -> None:
    weights = {"table": random(50, 32), "w": random(32, 8, seed=1)}
    constants = {"gain": np.ones(32, np.float32), "shift": np.zeros(32, np.float32)}
    source = package_of(model_of(TOKENS, weights | constants), tmp_path)
    ids = np.random.default_rng(0).integers(0, 50, (64, 7))
    product = DynamicInt8().convert(source, context_of(tmp_path, {"ids": ids}))
    step = product.manifest.provenance["steps"][-1]
    assert step["batch_dependent"] is True
    assert product.manifest.batching.independent_rows is True


def test_ranges_that_were_calibrated_belong_to_no_batch(tmp_path: Path) -> None:
    product = StaticInt8().convert(linear(tmp_path), context_of(tmp_path, {"x": random(64, 16)}))
    assert product.manifest.batching.independent_rows is True
    assert "batch_dependent" not in product.manifest.provenance["steps"][-1]
