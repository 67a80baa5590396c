"""Exports: the same answers as the network's, at any number of rows, under the network's names."""

from __future__ import annotations

import dataclasses
import subprocess
import sys
import zipfile

import ml_dtypes
import numpy as np
import onnx
import pytest
import torch
from torch import Tensor, nn

from headrace.compression.errors import CompressionError, DataError
from headrace.compression.export.onnx import OnnxExport
from headrace.compression.export.parity import check_parity
from headrace.compression.export.torch_program import TorchExport
from headrace.compression.networks.network import Network, as_array, as_tensor
from headrace.compression.steps import StepContext
from headrace.contracts import ModelPackage, TensorSpec
from headrace.contracts.package.manifest import BatchingAdvice, StoreAdvice
from headrace.runtimes.base import find_runtime


class Sentences(nn.Module):
    """Two inputs whose length varies; a dict of outputs in another order than they are served."""

    def __init__(self) -> None:
        super().__init__()
        self.words = nn.Embedding(50, 8)
        self.classify = nn.Linear(8, 3)

    def forward(self, input_ids: Tensor, attention_mask: Tensor) -> dict[str, Tensor]:
        hidden = self.words(input_ids) * attention_mask[..., None]
        logits = self.classify(hidden.sum(1) / attention_mask.sum(1, keepdim=True).clamp(min=1))
        return {"label": logits.argmax(-1), "logits": logits, "hidden": hidden}


@pytest.fixture
def sentences() -> Network:
    torch.manual_seed(0)
    example = {
        "input_ids": np.random.default_rng(0).integers(0, 50, (9, 7)),
        "attention_mask": np.ones((9, 7), np.int64),
    }
    outputs = ("logits", "hidden", "label")
    return Network("sentences", Sentences().eval(), example, outputs, shapes=((-1,), (-1,)))


class Odd(nn.Module):
    """One of the networks below, by name."""

    def __init__(self, kind: str) -> None:
        super().__init__()
        self.kind = kind

    def forward(self, x: Tensor) -> Tensor:
        match self.kind:
            case "frozen":
                return x.reshape(3, -1)
            case "frozen when traced":
                return x * int(x.shape[0])
            case "branches":
                return x * 2 if x.sum() > 0 else x
            case "foreign":
                y: Tensor = torch.special.airy_ai(x)
                return y
            case "drops rows":
                return x[:3]
            case _:
                return x + torch.rand_like(x)


def odd(kind: str) -> Network:
    return Network("odd", Odd(kind).eval(), {"x": np.random.default_rng(0).random((6, 2), np.float32)}, ("y",))


def test_the_onnx_package_is_the_network(
    digits_network: Network, context: StepContext, capfd: pytest.CaptureFixture[str]
) -> None:
    network = dataclasses.replace(
        digits_network,
        batching=BatchingAdvice(max_rows=32, row_sizes=(8, 32)),
        store=StoreAdvice(outputs="binary"),
        provenance={"steps": [{"step": "Before"}]},
        origin="digits:make",
    )
    package = OnnxExport().export(network, context)
    package.verify()
    assert capfd.readouterr() == ("", "")
    assert package.folder == context.folder / "onnx-export"
    assert sorted(path.name for path in package.folder.iterdir()) == ["model.onnx", "model.toml"]
    manifest = package.manifest
    assert manifest.inputs == (TensorSpec(name="image", datatype="FP32", shape=(1, 8, 8)),)
    assert [spec.describe() for spec in manifest.outputs] == ["label INT64 [rows]", "scores FP32 [rows, 10]"]
    assert (manifest.labels, manifest.batching, manifest.store) == (network.labels, network.batching, network.store)
    assert [step["step"] for step in manifest.provenance["steps"]] == ["Before", "OnnxExport"]
    assert manifest.provenance["source"] == "digits:make"

    model = find_runtime("onnxruntime", "cpu", 1).load(package)
    found = model.infer(context.data.selection.inputs)
    model.close()
    expected = network.infer(context.data.selection.inputs)
    np.testing.assert_allclose(found["scores"], expected["scores"], atol=1e-5)
    np.testing.assert_array_equal(found["label"], expected["label"])

    assert OnnxExport().export(network, context).manifest.sha256 == manifest.sha256  # the same bytes each time
    assert b"network.py" not in package.file.read_bytes()  # nothing of this machine's files
    graph = onnx.load(package.file).graph
    assert b"network.py" not in package.file.read_bytes()
    assert graph.input[0].type.tensor_type.shape.dim[0].dim_param == "rows"
    assert {weight.name for weight in graph.initializer} >= set(network.module.state_dict())


@pytest.mark.parametrize("step", [OnnxExport(), TorchExport()])
def test_lengths_that_vary_stay_free_and_outputs_come_in_the_order_of_the_network(
    sentences: Network, context: StepContext, step: OnnxExport | TorchExport
) -> None:
    manifest = step.export(sentences, context).manifest
    assert [(spec.name, spec.datatype, spec.shape) for spec in manifest.inputs] == [
        ("input_ids", "INT64", (-1,)),
        ("attention_mask", "INT64", (-1,)),
    ]
    assert [(spec.name, spec.datatype, spec.shape) for spec in manifest.outputs] == [
        ("logits", "FP32", (3,)),
        ("hidden", "FP32", (-1, 8)),
        ("label", "INT64", ()),
    ]


def test_a_pt2_program_takes_inputs_by_position_and_gives_a_tuple(
    digits_network: Network, digits_package: ModelPackage, context: StepContext
) -> None:
    package = TorchExport().export(digits_network, context)
    package.verify()
    assert (package.manifest.runtime, package.file.name) == ("torch", "model.pt2")
    assert package.manifest.outputs == digits_package.manifest.outputs
    rows = context.data.selection.inputs["image"]
    outputs = torch.export.load(package.file).module()(torch.from_numpy(rows))
    assert isinstance(outputs, tuple)
    np.testing.assert_array_equal(outputs[0].numpy(), digits_network.infer({"image": rows})["label"])
    with zipfile.ZipFile(package.file) as archive:
        sizes = [archive.getinfo(name).file_size for name in archive.namelist() if "sample_inputs" in name]
    assert max(sizes, default=0) < 1000  # the rows that were traced aren't in it


class Clashing(nn.Module):
    def forward(self, x: Tensor) -> tuple[Tensor, ...]:
        doubled = torch.relu(x) * 2
        return x, doubled, doubled, doubled.argmax(1)


def test_names_that_the_exporter_uses_inside_are_still_the_models_own(context: StepContext) -> None:
    rows = {"relu": np.random.default_rng(0).random((4, 3), np.float32)}
    network = Network("clash", Clashing().eval(), rows, ("mul", "x", "z", "relu_1"))
    package = OnnxExport().export(network, context)
    model = find_runtime("onnxruntime", "cpu", 1).load(package)
    found = model.infer(rows)
    model.close()
    np.testing.assert_array_equal(found["mul"], rows["relu"])
    np.testing.assert_array_equal(found["z"], rows["relu"] * 2)


@pytest.mark.parametrize(
    ("kind", "message"),
    [
        ("frozen", "fails on 1 rows .* frozen batch dimension; .* -1 or flatten"),
        ("branches", "can't be traced: .*; its forward must not branch on values"),
        ("foreign", "can't be exported to ONNX: .*airy_ai"),
        ("drops rows", r"output 'y' .* has the shape \[3, 2\] for 17 rows; its first dimension must be the rows"),
        ("random", r"the ONNX file of 'odd' differs from its source in output 'y': by 0\.\d+ at most"),
    ],
)
def test_what_can_not_be_exported_is_told_in_one_line_and_nothing_is_printed(
    context: StepContext, capfd: pytest.CaptureFixture[str], kind: str, message: str
) -> None:
    with pytest.raises(CompressionError, match=message):
        OnnxExport().export(odd(kind), context)
    assert capfd.readouterr() == ("", "")


def test_a_batch_dimension_that_freezes_in_tracing_is_named(context: StepContext) -> None:
    class Freezing(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return x + torch.arange(x.shape[0] if x.shape[0] != 5 else 5)[:, None]

    with pytest.raises(CompressionError, match="frozen batch dimension of 5 in input 'x'"):
        TorchExport().export(dataclasses.replace(odd(""), module=Freezing().eval()), context)


def test_shapes_must_fit_the_example(context: StepContext) -> None:
    with pytest.raises(CompressionError, match=r"the shapes \[\[3\]\] .* don't fit its example rows"):
        OnnxExport().export(dataclasses.replace(odd(""), shapes=((3,),)), context)


def test_labels_may_differ_only_where_their_scores_tie() -> None:
    scores = np.array([[0.5, 0.5, 0.0], [0.1, 0.2, 0.7]], np.float32)
    expected = {"label": np.array([0, 2]), "scores": scores}
    check_parity(expected, {"label": np.array([1, 2]), "scores": scores}, 1e-4, "the export")
    with pytest.raises(CompressionError, match=r"output 'label': 50\.0% of the values are others"):
        check_parity(expected, {"label": np.array([0, 1]), "scores": scores}, 1e-4, "the export")
    with pytest.raises(CompressionError, match="'label' as int32"):
        check_parity(expected, {"label": np.array([0, 2], np.int32), "scores": scores}, 1e-4, "the export")


def test_nan_must_be_where_it_was() -> None:
    source, other = np.array([1.0, np.nan, np.inf]), np.array([np.nan, 1.0, np.inf])
    check_parity({"y": source}, {"y": source.copy()}, 1e-4, "the export")
    with pytest.raises(CompressionError, match="NaN or infinity"):
        check_parity({"y": source}, {"y": other}, 1e-4, "the export")


def test_arrays_of_any_kind_cross_to_torch_and_back() -> None:
    halves = np.arange(4).astype(ml_dtypes.bfloat16)
    halves.flags.writeable = False
    for array in (halves, np.arange(6, dtype=np.uint8)[::-2], np.array([True, False])):
        back = as_array(as_tensor(array))
        assert back.dtype == array.dtype
        np.testing.assert_array_equal(back, array)
    with pytest.raises(DataError, match="torch has no datatype"):
        as_tensor(np.array(["a"]))


def test_importing_the_steps_does_not_import_torch() -> None:
    names = "export.onnx export.torch_program export.parity training.train distillation.distill networks.loading"
    modules = ", ".join(f"headrace.compression.{name}" for name in names.split())
    code = f"import sys, {modules}; sys.exit('torch' in sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True)


class Centred(nn.Module):
    """Subtracts the mean of the batch: no row's answer is its own."""

    def forward(self, x: Tensor) -> Tensor:
        return x - x.mean(dim=0, keepdim=True)


@pytest.mark.parametrize("step", [OnnxExport(), TorchExport()])
def test_a_network_whose_rows_depend_on_each_other_is_served_alone(
    context: StepContext, step: OnnxExport | TorchExport
) -> None:
    example = {"x": np.random.default_rng(0).random((8, 4), np.float32)}
    package = step.export(Network("centred", Centred().eval(), example, ("y",)), context)
    assert package.manifest.batching.independent_rows is False
