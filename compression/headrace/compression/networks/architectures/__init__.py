"""Efficient families of image classifiers, small definitions of our own after the papers, with random weights.

They are there to be measured (`headrace compress review`) and as students of a distillation. At 224 pixels and 1,000
classes they have the parameters that the papers state.
"""

from __future__ import annotations

from collections.abc import Mapping
from importlib import import_module
from typing import TYPE_CHECKING, Final

from headrace.compression.networks.architectures.task import ImageTask

if TYPE_CHECKING:
    from torch import nn

#: Name → module and function that builds it; torch is imported only when one is built.
FAMILIES: Final[Mapping[str, tuple[str, str]]] = {
    "mobilenet-v2": ("mobilenet", "mobilenet_v2"),
    "mobilenet-v3": ("mobilenet", "mobilenet_v3"),
    "squeezenet": ("squeezenet", "squeezenet"),
    "efficientnet-b0": ("efficientnet", "efficientnet_b0"),
    "vit-tiny": ("vit", "vit_tiny"),
    "swin-tiny": ("swin", "swin_tiny"),
    "mobilevit": ("mobilevit", "mobilevit_s"),
}


def build(family: str, task: ImageTask, seed: int = 0) -> nn.Module:
    """Build a network of a family of `FAMILIES` for a task, with random weights, in eval mode.

    It takes FP32 [rows, channels, height, width] and gives logits [rows, classes].
    """
    import torch

    module, function = FAMILIES[family]
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        network: nn.Module = getattr(import_module(f"{__name__}.{module}"), function)(task)
        for layer in network.modules():
            if isinstance(layer, torch.nn.Conv2d):
                # Keeps signals at their size through many layers of ReLUs (He et al. 2015); torch's default doesn't.
                torch.nn.init.kaiming_normal_(layer.weight, nonlinearity="relu")
                if layer.bias is not None:
                    torch.nn.init.zeros_(layer.bias)
    return network.eval()


__all__ = ["FAMILIES", "ImageTask", "build"]
