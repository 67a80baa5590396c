"""The demo's digit classifier as a torch network, with trained weights out of the ONNX file that is shipped.

    python examples/digits/rows.py                   # writes the rows, as the network takes them
    headrace compress cli/headrace/cli/demo/data/models/digits/1 --network examples/digits/network.py:trained \\
        --data .headrace/examples/digits/train.npz --test .headrace/examples/digits/test.npz --label label

`train.py` made these weights. The batch normalisation that it trained with is part of the convolutions here, as it is
in the file, and there is no dropout.
"""

from __future__ import annotations

from pathlib import Path

import onnx
import torch
from onnx import numpy_helper
from torch import Tensor, nn

DEMO_DATA = Path(__file__).parents[2] / "cli/headrace/cli/demo/data"
MODEL = DEMO_DATA / "models/digits/1/model.onnx"


class DigitNet(nn.Module):
    """Three convolutions and one linear layer: [rows, 1, 8, 8] in 0..1 → logits [rows, 10]."""

    def __init__(self) -> None:
        """Start from random weights."""
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
        """Return logits [rows, 10] for images [rows, 1, 8, 8]."""
        logits: Tensor = self.classify(self.features(image))
        return logits


class LabelAndScores(nn.Module):
    """A network of logits as it is served: label and scores, so that a row in Postgres reads by itself."""

    def __init__(self, network: nn.Module) -> None:
        """network: gives logits."""
        super().__init__()
        self.network = network

    def forward(self, image: Tensor) -> tuple[Tensor, Tensor]:
        """Return argmax INT64 [rows] and softmax FP32 [rows, 10]."""
        logits = self.network(image)
        return logits.argmax(dim=1), logits.softmax(dim=1)


def trained_logits() -> nn.Module:
    """Return the network that ends in logits."""
    network = DigitNet()
    network.load_state_dict(_weights(MODEL))
    return network.eval()


def trained() -> nn.Module:
    """Return the network as it is served."""
    return LabelAndScores(trained_logits()).eval()


def _weights(path: Path) -> dict[str, Tensor]:
    """Read weights out of the ONNX file, where the layers have the numbers that they have in `train.py`."""
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
