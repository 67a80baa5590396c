"""SqueezeNet 1.1 (Iandola et al. 2016; 1.1 is the authors' later, 2.4 times cheaper variant).

Unlike theirs it has a batch norm after each convolution, which export folds away, and no ReLU on the logits: from a
thousand images the original hardly learns.
"""

from __future__ import annotations

from typing import Final

import torch
from torch import Tensor, nn

from headrace.compression.networks.architectures.blocks import ConvNorm
from headrace.compression.networks.architectures.task import Halvings, ImageTask

#: Squeezed and expanded channels of each fire module; a pooling that halves the image goes before where True.
_FIRES: Final = (
    (16, 64, True),
    (16, 64, False),
    (32, 128, True),
    (32, 128, False),
    (48, 192, True),
    (48, 192, False),
    (64, 256, False),
    (64, 256, False),
)


class Fire(nn.Module):
    """Squeeze by 1x1, expand by 1x1 and 3x3 side by side."""

    def __init__(self, before: int, squeezed: int, expanded: int) -> None:
        """expanded: channels of either side; the output has twice as many."""
        super().__init__()
        self.squeeze = ConvNorm((before, squeezed), 1)
        self.one = ConvNorm((squeezed, expanded), 1)
        self.three = ConvNorm((squeezed, expanded), 3)

    def forward(self, features: Tensor) -> Tensor:
        """Map [rows, before, height, width] to [rows, 2·expanded, height, width]."""
        squeezed = self.squeeze(features)
        return torch.cat([self.one(squeezed), self.three(squeezed)], dim=1)


def squeezenet(task: ImageTask) -> nn.Module:
    """Build SqueezeNet 1.1. It shrinks images by 16 only, so small ones lose no more than they must."""
    halvings = Halvings(task)
    layers: list[nn.Module] = [ConvNorm((task.channels, 64), 3, halvings.next())]
    before = 64
    for squeezed, expanded, pooled in _FIRES:
        if pooled:
            layers.append(nn.MaxPool2d(3, halvings.next(), padding=1))
        layers.append(Fire(before, squeezed, expanded))
        before = 2 * expanded
    head = [nn.Conv2d(before, task.classes, 1), nn.AdaptiveAvgPool2d(1), nn.Flatten()]
    return nn.Sequential(*layers, *head)
