"""Conversion by litert-torch, in its own environment: `make test-converters` makes it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Literal

import numpy as np
import pytest
import torch
from tests.compression.onnx_models import answers, context_of, random
from torch import Tensor, nn

from headrace.compression.conversion.litert import LiteRtExport
from headrace.compression.data.dataset import Splits
from headrace.compression.errors import CompressionError, DataError
from headrace.compression.networks.network import Network
from headrace.compression.steps import StepContext
from headrace.contracts import ModelPackage, Tensors

pytestmark = pytest.mark.converters


class Words(nn.Module):
    """Token ids INT64 [rows, 16] and their mask FP32 [rows, 16] → FP32 [rows, 5]."""

    def __init__(self) -> None:
        super().__init__()
        self.embed = nn.Embedding(100, 32)
        self.layer = nn.TransformerEncoderLayer(32, 4, 64, batch_first=True)
        self.head = nn.Linear(32, 5)

    def forward(self, ids: Tensor, mask: Tensor) -> Tensor:
        tokens = self.layer(self.embed(ids)) * mask[..., None]
        result: Tensor = self.head(tokens.sum(1) / mask.sum(1, keepdim=True))
        return result


class Function(nn.Module):
    """[rows, 4] → what a function makes of it."""

    def __init__(self, function: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.function = function

    def forward(self, x: Tensor) -> Tensor:
        return self.function(x)


def accuracy(package: ModelPackage, splits: Splits) -> float:
    assert splits.test.labels is not None
    return float((answers(package, splits.test.inputs)["label"] == splits.test.labels).mean())


def test_a_network_answers_as_it_did_in_torch_for_any_number_of_rows(
    digits_network: Network, context: StepContext, splits: Splits
) -> None:
    package = LiteRtExport().export(digits_network, context)
    package.verify()
    assert package.manifest.runtime == "litert"
    assert package.manifest.labels == digits_network.labels
    assert package.manifest.batching.row_sizes == ()
    for rows in (1, 3, 64, 17):
        inputs = splits.test.take(slice(0, rows)).inputs
        want, have = digits_network.infer(inputs), answers(package, inputs)
        assert np.array_equal(want["label"], have["label"])
        assert have["label"].dtype == np.int64
        assert np.allclose(want["scores"], have["scores"], atol=1e-5)
    step = package.manifest.provenance["steps"][-1]
    assert step["step"] == "LiteRtExport"
    assert step["versions"]["litert-torch"]


@pytest.mark.parametrize("precision", ["int8-dynamic", "int8"])
def test_int8_is_small_and_right(
    precision: Literal["int8-dynamic", "int8"],
    digits_network: Network,
    context: StepContext,
    splits: Splits,
    capfd: pytest.CaptureFixture[str],
) -> None:
    package = LiteRtExport(precision=precision).export(digits_network, context)
    shown = capfd.readouterr()
    assert shown.out == ""
    # The interpreter's own line, which no switch turns off.
    assert {line.split(":")[0] for line in shown.err.splitlines()} <= {"INFO"}
    assert package.size_bytes < 60_000
    assert accuracy(package, splits) >= 0.98


def test_a_transformer_with_token_ids_takes_any_number_of_rows(tmp_path: Path) -> None:
    torch.manual_seed(0)
    ids = np.random.default_rng(0).integers(0, 100, (64, 16))
    rows: Tensors = {"ids": ids, "mask": np.ones((64, 16), np.float32)}
    network = Network("words", Words().eval(), {name: array[:8] for name, array in rows.items()}, ("y",))
    package = LiteRtExport().export(network, context_of(tmp_path, rows))
    assert np.allclose(answers(package, rows)["y"], network.infer(rows)["y"], atol=1e-5)


def network_of(function: Callable[[Tensor], Tensor]) -> Network:
    return Network("odd", Function(function).eval(), {"x": random(8, 4)}, ("y",))


def test_an_operator_that_litert_lacks_is_named(tmp_path: Path) -> None:
    context = context_of(tmp_path, {"x": random(8, 4)})
    with pytest.raises(CompressionError, match=r"LiteRT has no operator for aten\.cummax"):
        LiteRtExport().export(network_of(lambda x: torch.cummax(x, 1)[0]), context)


def test_a_network_that_can_not_take_any_number_of_rows_is_refused(tmp_path: Path) -> None:
    token = torch.ones(1, 4)
    network = network_of(lambda x: torch.cat([token.expand(x.shape[0], -1), x], 1))
    context = context_of(tmp_path, {"x": random(8, 4)})
    with pytest.raises(CompressionError, match="can't take any number of rows in LiteRT"):
        LiteRtExport().export(network, context)
    assert not (context.folder / "lite-rt-export").exists()


def test_int8_without_enough_rows_is_refused_before_it_converts(digits_network: Network, context: StepContext) -> None:
    data = context.data
    few = StepContext(context.folder, Splits(data.train, data.calibration.take(slice(0, 8)), data.selection, data.test))
    with pytest.raises(DataError, match="at least 32 rows"):
        LiteRtExport(precision="int8").export(digits_network, few)
