"""ViT-Tiny/16 (Dosovitskiy et al. 2021; the Tiny size is that of DeiT, Touvron et al. 2021, table 1)."""

from __future__ import annotations

from typing import Final

import torch
from torch import Tensor, nn

from headrace.compression.networks.architectures.blocks import TransformerLayer
from headrace.compression.networks.architectures.task import ImageTask

_WIDTH: Final = 192
_HEADS: Final = 3
_LAYERS: Final = 12

#: Pixels a side of a patch; smaller ones for small images, so that there are at least 7 × 7 of them.
_PATCH: Final = 16
_LEAST_PATCHES: Final = 7


class VisionTransformer(nn.Module):
    """A transformer over patches as tokens, with a class token."""

    def __init__(self, task: ImageTask) -> None:
        """task: the position embedding is for images of its size alone."""
        super().__init__()
        patch = _PATCH
        while patch > 1 and min(task.height, task.width) // patch < _LEAST_PATCHES:
            patch //= 2
        self.patches = nn.Conv2d(task.channels, _WIDTH, patch, patch)
        count = (task.height // patch) * (task.width // patch)
        self.class_token = nn.Parameter(torch.zeros(1, 1, _WIDTH))
        self.positions = nn.Parameter(torch.randn(1, 1 + count, _WIDTH) * 0.02)
        self.layers = nn.Sequential(*(TransformerLayer(_WIDTH, _HEADS, 4 * _WIDTH) for _ in range(_LAYERS)))
        self.norm = nn.LayerNorm(_WIDTH)
        self.classify = nn.Linear(_WIDTH, task.classes)

    def forward(self, image: Tensor) -> Tensor:
        """Return logits [rows, classes]."""
        tokens = self.patches(image).flatten(2).transpose(1, 2)
        # Not len(tokens), which a trace would freeze.
        tokens = torch.cat([self.class_token.expand(tokens.shape[0], -1, -1), tokens], dim=1) + self.positions
        logits: Tensor = self.classify(self.norm(self.layers(tokens))[:, 0])
        return logits


def vit_tiny(task: ImageTask) -> nn.Module:
    """Build ViT-Tiny."""
    return VisionTransformer(task)
