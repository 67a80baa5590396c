"""The model of the contract suite, in torch: images in, a label and scores out. Weights come from a seed alone."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor, nn

CHANNELS, CLASSES = 8, 10


def weights() -> dict[str, np.ndarray]:
    random = np.random.default_rng(4)
    shapes = {
        "conv.weight": (CHANNELS, 1, 3, 3),
        "conv.bias": (CHANNELS,),
        "linear.weight": (CLASSES, CHANNELS),
        "linear.bias": (CLASSES,),
    }
    return {name: random.normal(size=shape).astype(np.float32) for name, shape in shapes.items()}


class SmallNet(nn.Module):
    """[rows, 1, 8, 8] → argmax INT64 [rows], softmax FP32 [rows, 10]."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(1, CHANNELS, 3, padding=1)
        self.linear = nn.Linear(CHANNELS, CLASSES)
        self.load_state_dict({name: torch.from_numpy(array) for name, array in weights().items()})

    def forward(self, image: Tensor) -> tuple[Tensor, Tensor]:
        logits = self.linear(torch.relu(self.conv(image)).mean((2, 3)))
        return logits.argmax(1), logits.softmax(1)


class Flattening(SmallNet):
    """The same, but for a maximum in place of the mean and a reshape, whose sizes litert-torch freezes."""

    def forward(self, image: Tensor) -> tuple[Tensor, Tensor]:
        logits = self.linear(torch.max_pool2d(torch.relu(self.conv(image)), 8).reshape(-1, CHANNELS))
        return logits.argmax(1), logits.softmax(1)
