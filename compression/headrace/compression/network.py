"""A torch network with all that is needed to train, export and serve it. Imports torch: load it only where used."""

from __future__ import annotations

import copy
import dataclasses
from dataclasses import dataclass
from typing import Any

from torch import nn

from headrace.contracts import Tensors
from headrace.contracts.package import BatchingAdvice, StoreAdvice


@dataclass(frozen=True)
class Network:
    """A torch module that takes its inputs by position and gives a tensor, a tuple or a dict of tensors, rows first.

    name: of the model. module: in eval mode. example: real rows of every input, in the order of the module's
    arguments. outputs: their names, in order. labels, batching, store: for the package. provenance: what was done so
    far; `steps` in it lists the recipe's steps. origin: the reference `module:factory` it came from.
    """

    name: str
    module: nn.Module
    example: Tensors
    outputs: tuple[str, ...]
    labels: tuple[str, ...] = ()
    batching: BatchingAdvice = dataclasses.field(default_factory=BatchingAdvice)
    store: StoreAdvice = dataclasses.field(default_factory=StoreAdvice)
    provenance: dict[str, Any] = dataclasses.field(default_factory=dict)
    origin: str = ""

    def copy(self) -> Network:
        """Give a network of its own weights, for a step to change."""
        return dataclasses.replace(self, module=copy.deepcopy(self.module), provenance=copy.deepcopy(self.provenance))

    def with_step(self, module: nn.Module, step: dict[str, Any]) -> Network:
        """Give the network that a step made: another module, and the step in the record."""
        steps = [*self.provenance.get("steps", []), step]
        return dataclasses.replace(self, module=module, provenance={**self.provenance, "steps": steps})
