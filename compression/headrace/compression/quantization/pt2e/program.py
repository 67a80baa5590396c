"""Traced programs that are being quantized by PT2E. Imports torch and torchao."""

from __future__ import annotations

import copy
import dataclasses
from typing import Any, Final

import torch
from torch import nn
from torch.fx import GraphModule

from headrace.compression.errors import MissingLibrary
from headrace.compression.export.trace import trace
from headrace.compression.networks.network import Network
from headrace.compression.silence import quieted

#: torchao tells of kernels for GPUs that it can't load, torch of its own deprecations.
_LOGGERS: Final = ("torchao", "torch.utils._pytree", "torch.export")


def need_torchao() -> None:
    """Raise MissingLibrary when torchao isn't installed."""
    try:
        with quieted(*_LOGGERS):
            import torchao.quantization.pt2e  # noqa: F401
    except ImportError as exc:
        raise MissingLibrary("PT2E quantization", "torch") from exc


class Program(nn.Module):
    """A traced program with observers or rounding in it, that can be trained and copied as other modules are.

    While it is not trained, observers don't look. Batch norms were traced for inference and keep their statistics.
    """

    def __init__(self, graph: GraphModule) -> None:
        """graph: what torchao prepared or converted."""
        super().__init__()
        self.graph = graph

    def forward(self, *inputs: torch.Tensor) -> Any:
        """Run the program."""
        return self.graph(*inputs)

    def train(self, mode: bool = True) -> Program:
        """Enable or disable observers; the graph has no other modes."""
        from torchao.quantization import pt2e

        self.training = mode
        self.graph.apply(pt2e.enable_observer if mode else pt2e.disable_observer)
        return self

    def __deepcopy__(self, memo: dict[int, Any]) -> Program:
        """Copy it without torch's warning of its own deprecations."""
        with quieted(*_LOGGERS):
            copied = Program(copy.deepcopy(self.graph, memo))
        copied.training = self.training
        return copied


def prepared(network: Network, *, trained: bool) -> Network:
    """Trace a network and put observers where it will be rounded; with `trained`, rounding that can be trained."""
    with quieted(*_LOGGERS):
        from torchao.quantization.pt2e.quantize_pt2e import prepare_pt2e, prepare_qat_pt2e
        from torchao.quantization.pt2e.quantizer import x86_inductor_quantizer as x86
        from torchao.quantization.pt2e.utils import _fuse_conv_bn_

        graph = trace(network).module(check_guards=False)
        quantizer = x86.X86InductorQuantizer()
        quantizer.set_global(x86.get_default_x86_inductor_quantization_config(is_qat=trained))
        if trained:
            # Training folds batch norms in a way of its own, by patterns that take torch seconds each to make; what is
            # trained for a few epochs keeps its statistics anyway.
            _fuse_conv_bn_(graph)
        graph = (prepare_qat_pt2e if trained else prepare_pt2e)(graph, quantizer)
    return dataclasses.replace(network, module=Program(graph))


def converted(network: Network) -> tuple[nn.Module, int]:
    """Return a prepared program, calibrated or trained, with integer weights; and their number."""
    assert isinstance(network.module, Program)
    with quieted(*_LOGGERS):
        from torchao.quantization.pt2e.quantize_pt2e import convert_pt2e

        program = Program(convert_pt2e(network.module.graph)).eval()
    weights = [each for each in program.graph.buffers() if each.dtype == torch.int8]
    return program, len(weights)
