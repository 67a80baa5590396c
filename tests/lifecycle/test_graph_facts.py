"""Facts that a graph gives a trial before it runs."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from tests.lifecycle.onnx_text import write
from tests.runtimes.conftest import HERE, save_pt2

from headrace.contracts import ModelDirectory
from headrace.lifecycle.packages.formats import take_in
from headrace.lifecycle.packages.graph_facts import graph_of, likely_cause, numbers_of, quantizes_together
from headrace.lifecycle.packages.registry import add_model

TRAINING = """g (float[n,3] x) => (float[n,3] y)
    <float[3] s = {1,2,3}, float[3] b = {0,1,2}, float[3] m = {0.5,0,0}, float[3] v = {1,1,2}>
    { y, m1, v1 = BatchNormalization <training_mode = 1> (x, s, b, m, v) }"""


def test_a_batch_norm_counts_in_training_mode_only(tmp_path: Path) -> None:
    assert graph_of(onnx.load(write(tmp_path / "m.onnx", TRAINING))).operators == {"BatchNormalization"}
    plain = TRAINING.replace("y, m1, v1", "y").replace("<training_mode = 1> ", "")
    assert graph_of(onnx.load(write(tmp_path / "m.onnx", plain))).operators == frozenset()


def test_numbers_of_comparisons_come_first(tmp_path: Path) -> None:
    graph = """g (float[n,3] x) => (float[n,3] y) <float other = {7}, float limit = {2.5}>
        { a = Add(x, other) b = Greater(a, limit) y = Cast <to = 1> (b) }"""
    assert graph_of(onnx.load(write(tmp_path / "m.onnx", graph))).numbers == (2.5, 7.0)


def test_words_that_are_looked_up_are_known(tmp_path: Path) -> None:
    graph = """g (string[n] x) => (float[n] y)
        { y = ai.onnx.ml.LabelEncoder <keys_strings = ["a","b c"], values_floats = [1.0,2.0]> (x) }"""
    assert graph_of(onnx.load(write(tmp_path / "m.onnx", graph))).words == (b"a", b"b c")


def test_graphs_within_graphs_are_read_too(tmp_path: Path) -> None:
    graph = """g (float[n,3] x, bool c) => (float[n,3] y)
        { y = If (c) <then_branch = t () => (float[n,3] p) { p = RandomNormalLike(x) },
                      else_branch = e () => (float[n,3] q) { q = Neg(x) }> }"""
    facts = graph_of(onnx.load(write(tmp_path / "m.onnx", graph)))
    assert likely_cause(facts.operators) == "RandomNormalLike draws anew in each run"


KNOWN_WORD = """g (int64[n] x) => (float[n] y) <int64 known = {101}>
    { e = Equal(x, known) i = Cast <to = 7> (e) m = ReduceMax <keepdims = 0> (i) s = Add(x, m)
      y = Cast <to = 1> (s) }"""


def write_ir(path: Path, graph: str) -> None:
    import openvino as ov

    ov.save_model(ov.Core().read_model(write(path.with_suffix(".onnx"), graph)), path, compress_to_fp16=False)


def test_constants_of_an_openvino_model_are_values_to_try(tmp_path: Path) -> None:
    write_ir(tmp_path / "m.xml", KNOWN_WORD)
    (tmp_path / "made").mkdir()
    assert take_in(tmp_path / "m.xml", tmp_path / "made").graph.numbers[0] == 101.0
    package = add_model(tmp_path / "m.xml", ModelDirectory(tmp_path / "models"))
    assert not package.manifest.batching.independent_rows


def test_limits_of_an_openvino_model_are_values_to_try(tmp_path: Path) -> None:
    graph = "g (float[n] x) => (float[n] y) <float low = {-7}, float high = {2.5}> { y = Clip(x, low, high) }"
    write_ir(tmp_path / "m.xml", graph)
    (tmp_path / "made").mkdir()
    assert {-7.0, 2.5} <= set(take_in(tmp_path / "m.xml", tmp_path / "made").graph.numbers)


class KnownWord(torch.nn.Module):
    """Changes all rows if one of them is 101, a constant; or more than 60000, which is in the program's text."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        known = (x == torch.tensor(101)).any() | (x > 60000).any()
        return x + known.to(torch.int64)


def test_constants_and_literals_of_a_torch_program_are_values_to_try(tmp_path: Path) -> None:
    program = torch.export.export(
        KnownWord(), (torch.zeros(3, dtype=torch.int64),), dynamic_shapes=({0: torch.export.Dim("n")},)
    )
    file = save_pt2(tmp_path, program)
    (tmp_path / "made").mkdir()
    assert {101.0, 60000.0} <= set(take_in(file, tmp_path / "made").graph.numbers)
    assert not add_model(file, ModelDirectory(tmp_path / "models")).manifest.batching.independent_rows


def test_small_constants_of_a_tensorflow_lite_file_are_values_to_try(tmp_path: Path) -> None:
    numbers = take_in(HERE / "small_net.tflite", tmp_path).graph.numbers
    # A permutation, and the biases of the last layer.
    assert {2.0, 3.0} <= set(numbers)
    assert any(not number.is_integer() for number in numbers)


def test_numbers_to_try_are_few_finite_and_different() -> None:
    constants = [np.array([2.5, np.nan, 2.5]), np.arange(9), np.array([True]), np.array(np.inf), np.array(b"word")]
    assert numbers_of(constants) == (2.5,)
    assert len(numbers_of(np.arange(8) + 8 * start for start in range(10))) == 24


@pytest.mark.parametrize(("operator", "together"), [("DynamicQuantizeLinear", True), ("TopK", False)])
def test_quantization_of_whole_batches_is_known(operator: str, together: bool) -> None:
    assert quantizes_together({operator}) is together
