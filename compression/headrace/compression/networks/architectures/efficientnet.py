"""EfficientNet-B0 (Tan and Le 2019, table 1)."""

from __future__ import annotations

from typing import Final

from torch import nn

from headrace.compression.networks.architectures.blocks import ConvNorm, InvertedResidual, pooled_classifier
from headrace.compression.networks.architectures.task import Halvings, ImageTask

#: Expansion, kernel, channels, repeats, whether the first of them halves the image.
_B0: Final = (
    (1, 3, 16, 1, False),
    (6, 3, 24, 2, True),
    (6, 5, 40, 2, True),
    (6, 3, 80, 3, True),
    (6, 5, 112, 3, False),
    (6, 5, 192, 4, True),
    (6, 3, 320, 1, False),
)


def efficientnet_b0(task: ImageTask) -> nn.Module:
    """Build EfficientNet-B0."""
    halvings = Halvings(task)
    layers: list[nn.Module] = [ConvNorm((task.channels, 32), 3, halvings.next(), activation="silu")]
    before = 32
    for expansion, kernel, channels, repeats, halves in _B0:
        for repeat in range(repeats):
            stride = halvings.next() if halves and repeat == 0 else 1
            # The squeeze is a quarter of the block's input, not of its expanded channels as in MobileNetV3.
            block = InvertedResidual(
                (before, before * expansion, channels), kernel, stride, "silu", max(1, before // 4)
            )
            layers.append(block)
            before = channels
    layers.append(ConvNorm((before, 1280), 1, activation="silu"))
    return nn.Sequential(*layers, pooled_classifier(1280, task.classes))
