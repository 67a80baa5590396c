"""Importance of each channel to a network. Imports torch."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

import numpy as np
import torch
import torch_pruning
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional

from headrace.compression.data.dataset import Dataset
from headrace.compression.data.probabilities import are_probabilities
from headrace.compression.networks.network import Network
from headrace.compression.pruning.dependency_groups import CONSUMERS, ChannelGraph, input_weights
from headrace.compression.steps import StepContext
from headrace.compression.training.loss import choose, logits_of
from headrace.compression.training.training_data import read_labels

#: Draws of the estimate, and the rows of each.
_DRAWS: Final = 48
_DRAW_ROWS: Final = 64


def scores_of(
    criterion: str, network: Network, names: Sequence[str], context: StepContext, temperature: float
) -> dict[str, NDArray[Any]]:
    """Return the importance of each channel of groups, by their names. criterion: of PruneChannels."""
    graph = ChannelGraph(network)
    groups = {name: group for name, group in graph.groups().items() if name in names}
    if criterion == "magnitude":
        measure = torch_pruning.importance.GroupMagnitudeImportance(p=2)
        return {name: measure(group).numpy() for name, group in groups.items()}
    worth = {name: np.zeros(len(group[0].idxs)) for name, group in groups.items()}
    for _ in _gradients(network, context, temperature):
        for name, group in groups.items():
            worth[name] += _slope(graph, group).numpy() ** 2
    return worth


def savings_of(network: Network, names: Sequence[str]) -> dict[str, float]:
    """Return the multiply-adds of one row that a channel of each group costs, in producers and consumers."""
    graph = ChannelGraph(network)
    work = _multiply_adds(network)
    savings = {}
    for name, group in graph.groups().items():
        if name in names:
            layers = {item.dep.target.module: len(item.idxs) for item in group if item.dep.target.module in work}
            savings[name] = sum(work[layer] for layer in layers) / len(group[0].idxs)
    return savings


def _multiply_adds(network: Network) -> dict[nn.Module, float]:
    """Count the multiply-adds of one row in each layer that is a consumer."""
    work: dict[nn.Module, float] = {}
    rows = len(next(iter(network.example.values())))

    def count(module: nn.Module, _inputs: object, result: Tensor) -> None:
        weight = module.weight
        assert isinstance(weight, Tensor)
        each = weight[:, 0].numel() if getattr(module, "transposed", False) else weight[0].numel()
        work[module] = work.get(module, 0.0) + result.numel() / rows * each

    hooks = [each.register_forward_hook(count) for each in network.module.modules() if isinstance(each, CONSUMERS)]
    try:
        network.infer(network.example)
    finally:
        for hook in hooks:
            hook.remove()
    return work


def _slope(graph: ChannelGraph, group: Any) -> Tensor:
    """Return the slope of the loss as each channel of a group is scaled down, [channels].

    A channel is turned down where it is taken in: there the weights that belong to it are a factor of it.
    """
    slope = torch.zeros(len(group[0].idxs), dtype=torch.float64)
    for item in group:
        if graph.consumes(item.dep):
            module = item.dep.target.module
            products = input_weights(module, module.weight.detach() * module.weight.grad).flatten(1).sum(1)
            slope.index_add_(0, torch.tensor(item.root_idxs), products[torch.tensor(item.idxs)].double())
    return slope


def _gradients(network: Network, context: StepContext, temperature: float) -> Any:
    """Leave gradients in the network, anew for each draw.

    Their squares estimate the curvature of the distillation loss: it is smallest at the teacher's own answers, where it
    has no slope, so that only the second order tells. For classes the draws are labels out of the network's own
    probabilities at this temperature (the Fisher information), for values random directions.
    """
    train = context.data.train
    random = np.random.default_rng(context.seed)
    generator = torch.Generator().manual_seed(context.seed)
    labels = read_labels(train.labels, network.labels)
    example = network.infer(network.example)
    output, kind = choose(network, labels, example)
    probabilities = kind == "classes" and are_probabilities(example[output])
    weights = [each for each in network.module.parameters() if each.requires_grad]
    for _ in range(_DRAWS):
        rows = random.choice(len(train), min(_DRAW_ROWS, len(train)), replace=False)
        network.module.zero_grad()
        with torch.enable_grad():
            given = network.named(network.module(*network.arguments(_inputs(train, rows))))[output]
            if kind == "classes":
                scores = logits_of(given, probabilities=probabilities).flatten(0, -2) / temperature
                drawn = torch.multinomial(scores.detach().softmax(-1), 1, generator=generator)[:, 0]
                loss = functional.cross_entropy(scores, drawn, reduction="sum")
            else:
                loss = (given * torch.randn(given.shape, generator=generator)).sum()
            loss.backward()  # type: ignore[no-untyped-call]
        for each in weights:
            if each.grad is None:
                each.grad = torch.zeros_like(each)
        yield
    network.module.zero_grad()


def _inputs(train: Dataset, rows: NDArray[np.intp]) -> dict[str, NDArray[Any]]:
    return {name: array[rows] for name, array in train.inputs.items()}
