"""The channels of a network that can go together: found in its graph, tried, removed. Imports torch."""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from typing import Any, Final

import torch
import torch_pruning
from torch import Tensor, nn
from torch_pruning.ops import OPTYPE
from torch_pruning.pruner import function

from headrace.compression.networks.network import Network, flatten

#: A layer that mixes channels in groups, or has them in an order of its own.
_MIXERS: Final = (nn.LayerNorm, nn.GroupNorm, nn.modules.instancenorm._InstanceNorm, nn.MultiheadAttention, nn.RNNBase)

#: The layers whose inputs a channel becomes.
CONSUMERS: Final = (nn.modules.conv._ConvNd, nn.Linear)

#: Largest difference between a network without a channel and one that ignores it, in units of 1 + the largest value.
_TOLERANCE: Final = 1e-3


class ChannelGraph:
    """The dependency graph of a network as it is now; outdated once the network was copied."""

    def __init__(self, network: Network) -> None:
        """network: whose module the groups belong to."""
        self.network = network
        self.names = {module: name for name, module in network.module.named_modules()}
        arguments = tuple(each[:2] for each in network.arguments(network.example))
        with warnings.catch_warnings(), torch.enable_grad():
            # It warns of parameters outside layers, which it handles well enough; what it does is tried anyway.
            warnings.simplefilter("ignore")
            self.graph = torch_pruning.DependencyGraph().build_dependency(
                network.module,
                example_inputs=arguments,
                forward_fn=lambda module, inputs: module(*inputs),
                output_transform=self._outputs,
                verbose=False,
            )

    def _outputs(self, result: object) -> list[Tensor]:
        """Put a node behind each output that channels can reach, so that they are seen to reach it."""
        return [each * 1.0 for each in flatten(result, self.network.outputs) if each.grad_fn is not None]

    def groups(self) -> dict[str, Any]:
        """Return the groups that don't reach an output, by the name of the layer that makes their channels."""
        found = {}
        for group in self.graph.get_all_groups(root_module_types=[nn.modules.conv._ConvNd, nn.Linear]):
            if all(self._can_go(item.dep) for item in group) and any(self.consumes(item.dep) for item in group):
                found[self.names[group[0].dep.target.module]] = group
        return found

    def _can_go(self, dep: Any) -> bool:
        module = dep.target.module
        if dep.target.type == OPTYPE.OUTPUT or isinstance(module, _MIXERS):
            return False
        if isinstance(module, nn.modules.conv._ConvNd):
            return module.groups in {1, module.in_channels} and not (
                module.groups > 1 and module.out_channels != module.in_channels
            )
        return True

    def consumes(self, dep: Any) -> bool:
        """Whether a dependency is that of a layer which takes the channels in and gives others."""
        return dep.handler in {function.prune_conv_in_channels, function.prune_linear_in_channels} and isinstance(
            dep.target.module, CONSUMERS
        )

    def of_channels(self, group: Any, channels: Sequence[int]) -> Any:
        """Return a group reduced to some channels."""
        root = group[0].dep
        return self.graph.get_pruning_group(root.target.module, root.handler, list(channels))


def input_weights(module: nn.Module, values: Tensor) -> Tensor:
    """Return weights, or an array of their shape, with the input channels first: [in, …]."""
    return values if getattr(module, "transposed", False) else values.transpose(0, 1)


def removable(network: Network, names: Sequence[str] | None = None) -> dict[str, int]:
    """Name the groups of which channels can go and nothing else changes, each with its number of channels.

    names: of groups that are known to be.
    """
    groups = ChannelGraph(network).groups()
    sizes = {name: len(group[0].idxs) for name, group in groups.items()}
    if names is None:
        sizes = {name: size for name, size in sizes.items() if size > 1}
        names = (
            list(sizes) if _goes_well(network, list(sizes)) else [name for name in sizes if _goes_well(network, [name])]
        )
    return {name: sizes[name] for name in names}


def remove(network: Network, plan: Mapping[str, Sequence[int]]) -> None:
    """Remove channels of groups, by their names, from a network."""
    graph = ChannelGraph(network)
    for name, channels in plan.items():
        graph.of_channels(graph.groups()[name], channels).prune()


def _goes_well(network: Network, names: Sequence[str]) -> bool:
    """Try whether a network without the first channel of groups is the one that ignores these channels."""
    if not names:
        return True
    ignoring, without = network.copy(), network.copy()
    graph = ChannelGraph(ignoring)
    groups = graph.groups()
    with torch.no_grad():
        for name in names:
            for dep, idxs in graph.of_channels(groups[name], [0]):
                if graph.consumes(dep):
                    input_weights(dep.target.module, dep.target.module.weight)[idxs] = 0
    try:
        remove(without, {name: [0] for name in names})
        found = without.infer(network.example)
    except Exception:  # noqa: BLE001  (a forward that needs this very size fails in its own way)
        return False
    expected = ignoring.infer(network.example)
    return all(
        found[name].shape == array.shape
        and (array.dtype.kind != "f" or abs(found[name] - array).max() <= _TOLERANCE * (1 + abs(array).max()))
        for name, array in expected.items()
    )
