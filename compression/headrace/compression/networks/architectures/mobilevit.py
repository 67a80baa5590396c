"""MobileViT-S (Mehta and Rastegari 2022, table 4): inverted residuals, with transformers over patches between them."""

from __future__ import annotations

from typing import Final

import torch
from torch import Tensor, nn

from headrace.compression.networks.architectures.blocks import (
    ConvNorm,
    InvertedResidual,
    TransformerLayer,
    pooled_classifier,
)
from headrace.compression.networks.architectures.task import Halvings, ImageTask

#: Channels, token width, transformer layers of the three last stages.
_STAGES: Final = ((96, 144, 2), (128, 192, 4), (160, 240, 3))
_HEADS: Final = 4
_PATCH: Final = 2


class MobileVitBlock(nn.Module):
    """Local features by convolution, global ones by attention among the same pixel of all patches (section 3.1)."""

    def __init__(self, channels: int, width: int, depth: int) -> None:
        """width: of a token. depth: transformer layers."""
        super().__init__()
        self.local = nn.Sequential(
            ConvNorm((channels, channels), 3, activation="silu"), nn.Conv2d(channels, width, 1, bias=False)
        )
        layers = [TransformerLayer(width, _HEADS, 2 * width, nn.SiLU) for _ in range(depth)]
        self.far = nn.Sequential(*layers, nn.LayerNorm(width))
        self.back = ConvNorm((width, channels), 1, activation="silu")
        self.join = ConvNorm((2 * channels, channels), 3, activation="silu")

    def forward(self, features: Tensor) -> Tensor:
        """Map [rows, channels, height, width] to the same shape."""
        local = self.local(features)
        height, width = features.shape[2:]
        padded = nn.functional.pad(local, (0, width % _PATCH, 0, height % _PATCH))
        mixed = _from_patches(self.far(_into_patches(padded)), padded.shape[2], padded.shape[3])
        joined: Tensor = self.join(torch.cat([features, self.back(mixed[:, :, :height, :width])], dim=1))
        return joined


def mobilevit_s(task: ImageTask) -> nn.Module:
    """Build MobileViT-S."""
    halvings = Halvings(task)
    layers: list[nn.Module] = [ConvNorm((task.channels, 16), 3, halvings.next(), activation="silu")]
    layers.append(InvertedResidual((16, 64, 32), 3, 1, "silu", 0))
    layers.append(InvertedResidual((32, 128, 64), 3, halvings.next(), "silu", 0))
    layers += [InvertedResidual((64, 256, 64), 3, 1, "silu", 0) for _ in range(2)]
    before = 64
    for channels, width, depth in _STAGES:
        layers.append(InvertedResidual((before, 4 * before, channels), 3, halvings.next(), "silu", 0))
        layers.append(MobileVitBlock(channels, width, depth))
        before = channels
    layers.append(ConvNorm((before, 4 * before), 1, activation="silu"))
    return nn.Sequential(*layers, pooled_classifier(4 * before, task.classes))


def _into_patches(features: Tensor) -> Tensor:
    """Cut [rows, width, h, w] into [rows·4, patches, width]: attention is among the same pixel of all patches."""
    rows, width, height, across = features.shape
    cut = features.reshape(rows, width, height // _PATCH, _PATCH, across // _PATCH, _PATCH)
    return cut.permute(0, 3, 5, 2, 4, 1).reshape(rows * _PATCH * _PATCH, -1, width)


def _from_patches(tokens: Tensor, height: int, across: int) -> Tensor:
    """Undo `_into_patches`."""
    width = tokens.shape[-1]
    cut = tokens.reshape(-1, _PATCH, _PATCH, height // _PATCH, across // _PATCH, width)
    return cut.permute(0, 5, 3, 1, 4, 2).reshape(-1, width, height, across)
