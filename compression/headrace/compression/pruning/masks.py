"""Masks that keep weights at zero while others are trained. Imports torch."""

from __future__ import annotations

import gzip
from collections import Counter
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize

from headrace.compression.networks.network import Network


class Held(nn.Module):
    """A weight times its mask, as torch's parametrizations have it: what the mask hides has no gradient."""

    def __init__(self, mask: Tensor) -> None:
        """mask: 1 for weights that live, 0 for the others; of the weight's shape."""
        super().__init__()
        self.register_buffer("mask", mask)
        self.mask: Tensor

    def forward(self, weight: Tensor) -> Tensor:
        """Return the weight as the layer uses it."""
        return weight * self.mask


def layers_of(network: Network) -> dict[str, nn.Module]:
    """Name the convolutions and linear layers; those that share their weights with another are left out."""
    kinds = (nn.modules.conv._ConvNd, nn.Linear)
    layers = {name: each for name, each in network.module.named_modules() if isinstance(each, kinds)}
    uses = Counter(id(each.weight) for each in layers.values())
    return {name: each for name, each in layers.items() if uses[id(each.weight)] == 1}


def smallest(layers: Mapping[str, nn.Module], sparsity: float) -> dict[str, Tensor]:
    """Return masks that hide this share of the weights of all layers, the smallest of them."""
    sizes = {name: _weight(layer).abs() for name, layer in layers.items()}
    everything = torch.cat([each.flatten() for each in sizes.values()])
    # By rank rather than by threshold: equal weights, such as zeros of a round before, are hidden to the exact number.
    hidden = torch.zeros_like(everything, dtype=torch.bool)
    hidden[everything.argsort(stable=True)[: round(sparsity * len(everything))]] = True
    parts = torch.split(hidden, [each.numel() for each in sizes.values()])
    return {name: (~part).to(size.dtype).view_as(size) for (name, size), part in zip(sizes.items(), parts, strict=True)}


def n_of_m(layers: Mapping[str, nn.Module], n: int, m: int) -> dict[str, Tensor]:
    """Return masks that show the n largest of every m weights along the input channels, where m divides these."""
    masks = {}
    for name, layer in layers.items():
        size = _weight(layer).abs()
        # A transposed convolution has its input channels first.
        at = 0 if getattr(layer, "transposed", False) else 1
        if size.shape[at] % m:
            continue
        last = size.movedim(at, -1)
        groups = last.reshape(*last.shape[:-1], -1, m)
        mask = torch.zeros_like(groups).scatter_(-1, groups.topk(n, dim=-1).indices, 1)
        masks[name] = mask.flatten(-2).movedim(-1, at).contiguous()
    return masks


def hold(network: Network, masks: Mapping[str, Tensor]) -> None:
    """Put masks on layers of a network."""
    for name, mask in masks.items():
        parametrize.register_parametrization(network.module.get_submodule(name), "weight", Held(mask))


def release(network: Network) -> None:
    """Make plain weights, with their zeros, of those under masks."""
    for layer in list(network.module.modules()):
        if parametrize.is_parametrized(layer, "weight"):
            parametrize.remove_parametrizations(layer, "weight", leave_parametrized=True)


def facts(before: Network, after: Network) -> dict[str, Any]:
    """Return the number of zero weights, and the gzipped size of all weights before and after, in bytes."""
    weights = [_weight(layer) for layer in layers_of(after).values()]
    zero = sum(int((each == 0).sum()) for each in weights)
    return {
        "zero_share": zero / sum(each.numel() for each in weights),
        "gzip_bytes": [_packed_bytes(before), _packed_bytes(after)],
    }


def _packed_bytes(network: Network) -> int:
    raw = b"".join(each.detach().numpy().tobytes() for each in network.module.parameters())
    return len(gzip.compress(raw, mtime=0))


def _weight(layer: nn.Module) -> Tensor:
    weight = layer.weight
    assert isinstance(weight, Tensor)
    return weight.detach()
