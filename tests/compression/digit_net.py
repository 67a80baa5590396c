"""The demo's digit classifier as a torch module, with trained weights out of the ONNX file that is shipped."""

from __future__ import annotations

from pathlib import Path

import onnx
import torch
from onnx import numpy_helper
from torch import Tensor, nn

DEMO_DATA = Path(__file__).parents[2] / "cli/headrace/cli/demo_data"


class DigitNet(nn.Module):
    """Three convolutions and one linear layer: [rows, 1, 8, 8] in 0..1 → logits [rows, 10]."""

    def __init__(self) -> None:
        super().__init__()
        self.features = nn.Sequential(
            nn.Conv2d(1, 24, 3, padding=1),
            nn.ReLU(),
            nn.Conv2d(24, 48, 3, padding=1),
            nn.ReLU(),
            nn.MaxPool2d(2),
            nn.Conv2d(48, 48, 3, padding=1),
            nn.ReLU(),
        )
        self.classify = nn.Sequential(nn.Flatten(), nn.Linear(48 * 4 * 4, 10))

    def forward(self, image: Tensor) -> Tensor:
        logits: Tensor = self.classify(self.features(image))
        return logits


class LabelAndScores(nn.Module):
    """The network as it is served: argmax INT64 [rows] and softmax FP32 [rows, 10]."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, image: Tensor) -> tuple[Tensor, Tensor]:
        logits = self.network(image)
        return logits.argmax(dim=1), logits.softmax(dim=1)


def trained_logits() -> nn.Module:
    """Give the network that ends in logits."""
    network = DigitNet()
    network.load_state_dict(_weights(DEMO_DATA / "models/digits/1" / "model.onnx"))
    return network.eval()


def trained() -> nn.Module:
    """Give the network as it is served."""
    return LabelAndScores(trained_logits()).eval()


def _weights(path: Path) -> dict[str, Tensor]:
    arrays = {
        tensor.name.removeprefix("network."): torch.from_numpy(numpy_helper.to_array(tensor).copy())
        for tensor in onnx.load(path).graph.initializer
    }
    names = {"features.0": "features.0", "features.2": "features.3", "features.5": "features.7"}
    weights = {f"{here}.weight": arrays[f"{there}.weight"] for here, there in names.items()}
    weights |= {f"{here}.bias": arrays[f"{there}.weight_bias"] for here, there in names.items()}
    weights["classify.1.weight"] = arrays["classify.2.weight"]
    weights["classify.1.bias"] = arrays["classify.2.bias"]
    return weights
