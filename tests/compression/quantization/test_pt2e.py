"""PT2E makes int8 networks that ONNX Runtime and torch run, for any number of rows."""

from __future__ import annotations

import dataclasses

import numpy as np
import onnx
import pytest
import torch
from torch import nn

from headrace.compression.data.dataset import Dataset
from headrace.compression.errors import DataError, NotApplicable
from headrace.compression.export.onnx import OnnxExport
from headrace.compression.export.torch_program import TorchExport
from headrace.compression.networks.network import Network
from headrace.compression.quantization.pt2e.quantize import Pt2eInt8
from headrace.compression.steps import StepContext
from headrace.runtimes.base import find_runtime

#: Integer kernels round ties another way: one step of the coarsest value moves the scores by so much.
TOLERANCE = 0.05


def accuracy(network: Network, rows: Dataset) -> float:
    return float((network.infer(rows.inputs)["label"] == rows.labels).mean())


def test_calibrated_int8_runs_in_onnx_runtime_with_whole_numbers(digits_network: Network, context: StepContext) -> None:
    quantized = Pt2eInt8().change(digits_network, context)
    assert quantized.provenance["steps"][-1]["quantized_layers"] == 4
    before = accuracy(digits_network, context.data.test)
    assert accuracy(quantized, context.data.test) >= before - 0.01
    package = OnnxExport().export(quantized, context)
    assert package.size_bytes < 60_000
    weights = {tuple(each.dims): each.data_type for each in onnx.load(package.file).graph.initializer}
    assert weights[(48, 48, 3, 3)] == onnx.TensorProto.INT8
    model = find_runtime("onnxruntime", "cpu", 1).load(package)
    labels = model.infer(context.data.test.inputs)["label"]
    model.close()
    assert float((labels == context.data.test.labels).mean()) >= before - 0.01


def test_int8_is_exported_for_torch(digits_network: Network, context: StepContext) -> None:
    quantized = Pt2eInt8().change(digits_network, context)
    assert TorchExport().export(quantized, context).manifest.runtime == "torch"


def test_training_for_int8_learns_from_the_network_before(digits_network: Network, context: StepContext) -> None:
    quantized = Pt2eInt8(trained=True, epochs=2, copies=0).change(digits_network, context)
    assert accuracy(quantized, context.data.test) >= accuracy(digits_network, context.data.test) - 0.01
    assert quantized.provenance["steps"][-1]["epochs_run"] == 2
    OnnxExport().export(quantized, context)


@pytest.mark.parametrize("trained", [False, True])
def test_batch_norms_are_folded_into_int8_weights(digits: Dataset, context: StepContext, trained: bool) -> None:
    torch.manual_seed(0)
    layers = (nn.Conv2d(1, 8, 3, bias=False), nn.BatchNorm2d(8), nn.ReLU(), nn.Flatten(), nn.Linear(288, 10))
    module = nn.Sequential(*layers)
    with torch.no_grad():  # statistics that are not those of the beginning
        module.train()(torch.from_numpy(digits.inputs["image"][:256]))
    network = Network("normed", module.eval(), digits.take(slice(0, 8)).inputs, ("scores",), tuple("0123456789"))
    quantized = Pt2eInt8(trained=trained, epochs=1, copies=0, learning_rate=1e-6).change(network, context)
    rows = digits.take(slice(0, 64)).inputs
    wanted, found = network.infer(rows)["scores"], quantized.infer(rows)["scores"]
    assert np.abs(wanted - found).max() < 0.1 * np.abs(wanted).max() + 0.05
    package = OnnxExport().export(quantized, context)
    assert {node.op_type for node in onnx.load(package.file).graph.node}.isdisjoint(
        {"BatchNormalization", "Sqrt", "Div"}
    )


def test_without_rows_there_are_no_ranges(digits_network: Network, context: StepContext) -> None:
    none = context.data.train.take(slice(0, 0))
    empty = dataclasses.replace(context, data=dataclasses.replace(context.data, train=none, calibration=none))
    for step in (Pt2eInt8(), Pt2eInt8(trained=True)):
        with pytest.raises(DataError, match="there are none"):
            step.change(digits_network, empty)


def test_a_network_without_layers_has_nothing_to_quantize(digits: Dataset, context: StepContext) -> None:
    network = Network("plain", nn.Flatten().eval(), digits.take(slice(0, 8)).inputs, ("pixels",))
    with pytest.raises(NotApplicable, match="no convolution or linear layer"):
        Pt2eInt8().change(network, context)
