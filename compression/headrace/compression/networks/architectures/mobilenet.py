"""MobileNetV2 (Sandler et al. 2018, table 2) and MobileNetV3-Large (Howard et al. 2019, table 1)."""

from __future__ import annotations

from typing import Final

from torch import nn

from headrace.compression.networks.architectures.blocks import (
    ConvNorm,
    InvertedResidual,
    pooled_classifier,
    rounded_channels,
)
from headrace.compression.networks.architectures.task import Halvings, ImageTask

#: Expansion, channels, repeats, whether the first of them halves the image.
_V2: Final = (
    (1, 16, 1, False),
    (6, 24, 2, True),
    (6, 32, 3, True),
    (6, 64, 4, True),
    (6, 96, 3, False),
    (6, 160, 3, True),
    (6, 320, 1, False),
)

#: Kernel, expanded channels, channels, squeeze-and-excite, activation, whether it halves the image.
_V3_LARGE: Final = (
    (3, 16, 16, False, "relu", False),
    (3, 64, 24, False, "relu", True),
    (3, 72, 24, False, "relu", False),
    (5, 72, 40, True, "relu", True),
    (5, 120, 40, True, "relu", False),
    (5, 120, 40, True, "relu", False),
    (3, 240, 80, False, "hardswish", True),
    (3, 200, 80, False, "hardswish", False),
    (3, 184, 80, False, "hardswish", False),
    (3, 184, 80, False, "hardswish", False),
    (3, 480, 112, True, "hardswish", False),
    (3, 672, 112, True, "hardswish", False),
    (5, 672, 160, True, "hardswish", True),
    (5, 960, 160, True, "hardswish", False),
    (5, 960, 160, True, "hardswish", False),
)


def mobilenet_v2(task: ImageTask) -> nn.Module:
    """Build MobileNetV2 at width 1."""
    halvings = Halvings(task)
    layers: list[nn.Module] = [ConvNorm((task.channels, 32), 3, halvings.next(), activation="relu6")]
    before = 32
    for expansion, channels, repeats, halves in _V2:
        for repeat in range(repeats):
            stride = halvings.next() if halves and repeat == 0 else 1
            layers.append(InvertedResidual((before, before * expansion, channels), 3, stride, "relu6", 0))
            before = channels
    layers.append(ConvNorm((before, 1280), 1, activation="relu6"))
    return nn.Sequential(*layers, pooled_classifier(1280, task.classes))


def mobilenet_v3(task: ImageTask) -> nn.Module:
    """Build MobileNetV3-Large at width 1."""
    halvings = Halvings(task)
    layers: list[nn.Module] = [ConvNorm((task.channels, 16), 3, halvings.next(), activation="hardswish")]
    before = 16
    for kernel, expanded, channels, attention, activation, halves in _V3_LARGE:
        squeezed = rounded_channels(expanded / 4) if attention else 0
        stride = halvings.next() if halves else 1
        layers.append(InvertedResidual((before, expanded, channels), kernel, stride, activation, squeezed))
        before = channels
    layers.append(ConvNorm((before, 960), 1, activation="hardswish"))
    return nn.Sequential(*layers, pooled_classifier(960, task.classes, hidden=1280))
