"""A convolutional network for handwritten digits of 28 × 28 pixels, as in tutorials: 32, 64 and 128 channels.

    python examples/mnist/train.py                   # writes the rows, trains, and keeps the weights: two minutes
    headrace compress examples/mnist/network.py:trained --name mnist --outputs label,scores --label label \\
        --data .headrace/examples/mnist/rows.npz --test .headrace/examples/mnist/test.npz

`trained` reads the weights from `.headrace/examples/mnist/weights.npz`, or from the file that MNIST_WEIGHTS names.
"""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

FOLDER = Path(".headrace/examples/mnist")
WEIGHTS = "weights.npz"


class MnistNet(nn.Module):
    """Three convolutions and one linear layer, 105 thousand weights: [rows, 1, 28, 28] in 0..1 → logits [rows, 10]."""

    def __init__(self) -> None:
        """Start from random weights; `torch.manual_seed` determines them."""
        super().__init__()
        self.layers = nn.Sequential(
            *_block(1, 32),
            *_block(32, 64),
            *_block(64, 128),
            nn.Flatten(),
            nn.Dropout(0.3),
            nn.Linear(128 * 3 * 3, 10),
        )

    def forward(self, image: Tensor) -> Tensor:
        """Return logits [rows, 10] for images [rows, 1, 28, 28]."""
        logits: Tensor = self.layers(image)
        return logits


def _block(channels: int, to: int) -> list[nn.Module]:
    """Return the layers that halve the sides and turn `channels` channels into `to`."""
    return [nn.Conv2d(channels, to, 3, padding=1, bias=False), nn.BatchNorm2d(to), nn.ReLU(), nn.MaxPool2d(2)]


class Served(nn.Module):
    """The network as it is served: label and scores, so that a row in Postgres reads by itself."""

    def __init__(self, network: MnistNet) -> None:
        """network: returns logits."""
        super().__init__()
        self.network = network

    def forward(self, image: Tensor) -> tuple[Tensor, Tensor]:
        """Return argmax INT64 [rows] and softmax FP32 [rows, 10]."""
        logits = self.network(image)
        return logits.argmax(dim=1), logits.softmax(dim=1)


def save(network: MnistNet, file: Path) -> None:
    """Write the weights: plain arrays, nothing that could run."""
    np.savez(file, **{name: value.numpy() for name, value in network.state_dict().items()})


def load(file: Path) -> MnistNet:
    """Read what `save` wrote."""
    network = MnistNet()
    with np.load(file, allow_pickle=False) as arrays:
        network.load_state_dict({name: torch.from_numpy(arrays[name]) for name in arrays.files})
    return network.eval()


def trained() -> nn.Module:
    """Return the network as it is served. Raises FileNotFoundError before it was trained."""
    file = Path(os.environ.get("MNIST_WEIGHTS", FOLDER / WEIGHTS))
    if not file.is_file():
        raise FileNotFoundError(f"there are no weights in {file}; train them: python examples/mnist/train.py")
    return Served(load(file)).eval()
