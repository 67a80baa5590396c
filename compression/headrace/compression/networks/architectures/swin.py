"""Swin-T (Liu et al. 2021): attention within windows that shift from layer to layer, over four scales."""

from __future__ import annotations

from typing import Final

import torch
from torch import Tensor, nn

from headrace.compression.networks.architectures.blocks import Attention
from headrace.compression.networks.architectures.task import ImageTask

_WIDTH: Final = 96
_DEPTHS: Final = (2, 2, 6, 2)
_HEADS: Final = (3, 6, 12, 24)
_WINDOW: Final = 7
_PATCH: Final = 4

#: What keeps two pixels that a shift brought into one window from seeing each other.
_FAR: Final = -100.0


class WindowLayer(nn.Module):
    """A transformer layer whose attention stays within windows (section 3.2)."""

    def __init__(self, width: int, heads: int, size: tuple[int, int], shifted: bool) -> None:
        """size: height and width of the token map. shifted: by half a window, unless one window covers the map."""
        super().__init__()
        self.size = size
        self.window = min(_WINDOW, *size)
        self.padded = tuple(-(-side // self.window) * self.window for side in size)
        self.shift = self.window // 2 if shifted and min(size) > self.window else 0
        self.norm = nn.LayerNorm(width)
        self.attention = Attention(width, heads)
        self.mlp = nn.Sequential(
            nn.LayerNorm(width), nn.Linear(width, 4 * width), nn.GELU(), nn.Linear(4 * width, width)
        )
        self.position_bias = nn.Parameter(torch.randn((2 * self.window - 1) ** 2, heads) * 0.02)
        self.register_buffer("pairs", _relative_positions(self.window), persistent=False)
        self.register_buffer("mask", self._mask(), persistent=False)
        self.pairs: Tensor
        self.mask: Tensor

    def forward(self, features: Tensor) -> Tensor:
        """Map [rows, height, width, channels] to the same shape."""
        mixed = features + self._attend(self.norm(features))
        result: Tensor = mixed + self.mlp(mixed)
        return result

    def _attend(self, features: Tensor) -> Tensor:
        height, width = self.size
        features = nn.functional.pad(features, (0, 0, 0, self.padded[1] - width, 0, self.padded[0] - height))
        if self.shift:
            features = features.roll((-self.shift, -self.shift), (1, 2))
        windows = _into_windows(features, self.window)
        bias = self.position_bias[self.pairs].permute(2, 0, 1)[None] + self.mask[:, None]
        rows, count = features.shape[0], self.mask.shape[0]
        windows = self.attention(windows, bias.repeat(rows, 1, 1, 1) if count > 1 else bias)
        features = _from_windows(windows, self.window, self.padded)
        if self.shift:
            features = features.roll((self.shift, self.shift), (1, 2))
        return features[:, :height, :width]

    def _mask(self) -> Tensor:
        """Return [windows, tokens, tokens]: 0 between tokens that were neighbours before the shift, else far away."""
        regions = torch.zeros(1, *self.padded, 1)
        if self.shift:
            parts = (slice(0, -self.window), slice(-self.window, -self.shift), slice(-self.shift, None))
            for at, (rows, columns) in enumerate((a, b) for a in parts for b in parts):
                regions[:, rows, columns] = at
        flat = _into_windows(regions, self.window).squeeze(-1)
        return (flat[:, :, None] != flat[:, None, :]).float() * _FAR


class PatchMerging(nn.Module):
    """Join each 2 x 2 tokens into one of twice the width."""

    def __init__(self, width: int) -> None:
        """width: of the tokens that come in."""
        super().__init__()
        self.norm = nn.LayerNorm(4 * width)
        self.join = nn.Linear(4 * width, 2 * width, bias=False)

    def forward(self, features: Tensor) -> Tensor:
        """Map [rows, height, width, channels] to [rows, height/2, width/2, 2·channels]; odd sides are padded."""
        features = nn.functional.pad(features, (0, 0, 0, features.shape[2] % 2, 0, features.shape[1] % 2))
        quarters = [features[:, y::2, x::2] for x in (0, 1) for y in (0, 1)]
        joined: Tensor = self.join(self.norm(torch.cat(quarters, dim=-1)))
        return joined


class SwinTransformer(nn.Module):
    """Four stages of windowed layers, each but the first after a merging of tokens."""

    def __init__(self, task: ImageTask) -> None:
        """task: windows and masks are for images of its size alone."""
        super().__init__()
        patch = 1 if min(task.height, task.width) < 64 else _PATCH
        self.patches = nn.Conv2d(task.channels, _WIDTH, patch, patch)
        self.patch_norm = nn.LayerNorm(_WIDTH)
        size, width = (task.height // patch, task.width // patch), _WIDTH
        layers: list[nn.Module] = []
        for stage, (depth, heads) in enumerate(zip(_DEPTHS, _HEADS, strict=True)):
            if stage:
                layers.append(PatchMerging(width))
                size, width = (-(-size[0] // 2), -(-size[1] // 2)), 2 * width
            layers += [WindowLayer(width, heads, size, shifted=at % 2 == 1) for at in range(depth)]
        self.layers = nn.Sequential(*layers)
        self.norm = nn.LayerNorm(width)
        self.classify = nn.Linear(width, task.classes)

    def forward(self, image: Tensor) -> Tensor:
        """Return logits [rows, classes]."""
        features = self.layers(self.patch_norm(self.patches(image).permute(0, 2, 3, 1)))
        logits: Tensor = self.classify(self.norm(features).mean(dim=(1, 2)))
        return logits


def swin_tiny(task: ImageTask) -> nn.Module:
    """Build Swin-T."""
    return SwinTransformer(task)


def _into_windows(features: Tensor, window: int) -> Tensor:
    """Cut [rows, height, width, channels] into [rows·windows, window², channels]."""
    rows, height, width, channels = features.shape
    cut = features.reshape(rows, height // window, window, width // window, window, channels)
    return cut.transpose(2, 3).reshape(-1, window * window, channels)


def _from_windows(windows: Tensor, window: int, size: tuple[int, ...]) -> Tensor:
    """Undo `_into_windows`."""
    channels = windows.shape[-1]
    cut = windows.reshape(-1, size[0] // window, size[1] // window, window, window, channels)
    return cut.transpose(2, 3).reshape(-1, size[0], size[1], channels)


def _relative_positions(window: int) -> Tensor:
    """Number the offset between each two tokens of a window: [tokens, tokens] of indices into the bias table."""
    places = torch.stack(torch.meshgrid(torch.arange(window), torch.arange(window), indexing="ij")).flatten(1)
    offsets = places[:, :, None] - places[:, None, :] + window - 1
    return offsets[0] * (2 * window - 1) + offsets[1]
