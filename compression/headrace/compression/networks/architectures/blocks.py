"""Blocks that several families are made of. Imports torch: load it only where used."""

from __future__ import annotations

from torch import Tensor, nn


def rounded_channels(channels: float, divisor: int = 8) -> int:
    """Round a channel count to a multiple of `divisor`, never down by more than a tenth (Sandler et al. 2018, code)."""
    rounded = max(divisor, int(channels + divisor / 2) // divisor * divisor)
    return rounded + divisor if rounded < 0.9 * channels else rounded


class ConvNorm(nn.Sequential):
    """Convolution, batch norm and an activation unless it is None; padded so that stride 1 keeps the size."""

    def __init__(
        self, channels: tuple[int, int], kernel: int, stride: int = 1, groups: int = 1, activation: str | None = "relu"
    ) -> None:
        """channels: in and out. activation: of `ACTIVATIONS`."""
        layers: list[nn.Module] = [
            nn.Conv2d(*channels, kernel, stride, padding=kernel // 2, groups=groups, bias=False),
            nn.BatchNorm2d(channels[1]),
        ]
        if activation is not None:
            layers.append(ACTIVATIONS[activation]())
        super().__init__(*layers)


ACTIVATIONS = {"relu": nn.ReLU, "relu6": nn.ReLU6, "silu": nn.SiLU, "hardswish": nn.Hardswish}


class SqueezeExcite(nn.Module):
    """A gate on channels by the mean of all pixels (Hu et al. 2018): pool, squeeze, expand, gate."""

    def __init__(self, channels: int, squeezed: int, activation: str, gate: nn.Module) -> None:
        """gate: from the logits of channels to their weights."""
        super().__init__()
        self.weights = nn.Sequential(
            nn.AdaptiveAvgPool2d(1),
            nn.Conv2d(channels, squeezed, 1),
            ACTIVATIONS[activation](),
            nn.Conv2d(squeezed, channels, 1),
            gate,
        )

    def forward(self, features: Tensor) -> Tensor:
        """Map [rows, channels, height, width] to the same shape."""
        weighed: Tensor = features * self.weights(features)
        return weighed


class InvertedResidual(nn.Module):
    """Expand 1x1, depthwise, optional squeeze-and-excite, project 1x1, with a shortcut where shapes allow it.

    Sandler et al. 2018, fig. 4; Howard et al. 2019, fig. 4.
    """

    def __init__(
        self, channels: tuple[int, int, int], kernel: int, stride: int, activation: str, attention: int
    ) -> None:
        """channels: in, expanded, out. attention: squeezed channels of squeeze-and-excite, 0 for none; its gate is
        the sigmoid for SiLU (EfficientNet), else the hard sigmoid (MobileNetV3).
        """
        super().__init__()
        first, expanded, last = channels
        layers: list[nn.Module] = []
        if expanded != first:
            layers.append(ConvNorm((first, expanded), 1, activation=activation))
        layers.append(ConvNorm((expanded, expanded), kernel, stride, groups=expanded, activation=activation))
        if attention:
            gate, inner = (nn.Sigmoid(), "silu") if activation == "silu" else (nn.Hardsigmoid(), "relu")
            layers.append(SqueezeExcite(expanded, attention, inner, gate))
        layers.append(ConvNorm((expanded, last), 1, activation=None))
        self.layers = nn.Sequential(*layers)
        self.shortcut = stride == 1 and first == last

    def forward(self, features: Tensor) -> Tensor:
        """Map [rows, in, height, width] to [rows, out, height/stride, width/stride]."""
        changed: Tensor = self.layers(features)
        return features + changed if self.shortcut else changed


def pooled_classifier(channels: int, classes: int, hidden: int = 0, activation: str = "hardswish") -> nn.Sequential:
    """Return the head: mean over all pixels, an optional hidden layer, logits [rows, classes]."""
    layers: list[nn.Module] = [nn.AdaptiveAvgPool2d(1), nn.Flatten()]
    if hidden:
        layers += [nn.Linear(channels, hidden), ACTIVATIONS[activation]()]
    return nn.Sequential(*layers, nn.Linear(hidden or channels, classes))


class TransformerLayer(nn.Module):
    """Attention and a two-layer perceptron, each after a layer norm and with a shortcut (Dosovitskiy et al. 2021)."""

    def __init__(self, width: int, heads: int, hidden: int, activation: type[nn.Module] = nn.GELU) -> None:
        """width: of a token. hidden: of the perceptron."""
        super().__init__()
        self.attention_norm = nn.LayerNorm(width)
        self.attention = Attention(width, heads)
        self.mlp = nn.Sequential(nn.LayerNorm(width), nn.Linear(width, hidden), activation(), nn.Linear(hidden, width))

    def forward(self, tokens: Tensor) -> Tensor:
        """Map [rows, tokens, width] to the same shape."""
        tokens = tokens + self.attention(self.attention_norm(tokens))
        mixed: Tensor = tokens + self.mlp(tokens)
        return mixed


class Attention(nn.Module):
    """Scaled dot-product attention of all tokens to all tokens (Vaswani et al. 2017)."""

    def __init__(self, width: int, heads: int) -> None:
        """width: of a token, a multiple of `heads`."""
        super().__init__()
        self.heads = heads
        self.inputs = nn.Linear(width, 3 * width)
        self.output = nn.Linear(width, width)

    def forward(self, tokens: Tensor, bias: Tensor | None = None) -> Tensor:
        """Map [rows, tokens, width] to the same shape; bias: added to the scores, broadcast to [rows, heads, t, t]."""
        rows, count, width = tokens.shape
        split = self.inputs(tokens).reshape(rows, count, 3, self.heads, width // self.heads).permute(2, 0, 3, 1, 4)
        # Written out: torch's fused attention has kernels of different memory layouts, which exporters stumble over.
        scores = (split[0] * (width // self.heads) ** -0.5) @ split[1].transpose(-2, -1)
        attended = (scores if bias is None else scores + bias).softmax(dim=-1) @ split[2]
        result: Tensor = self.output(attended.transpose(1, 2).reshape(rows, count, width))
        return result
