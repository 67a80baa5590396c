"""A torch network with all that is needed to train, export and serve it. Imports torch: load it only where used."""

from __future__ import annotations

import copy
import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from headrace.compression.errors import CompressionError, DataError
from headrace.contracts import Tensors
from headrace.contracts.package.manifest import BatchingAdvice, StoreAdvice
from headrace.contracts.tensors.datatypes import DTYPES


@dataclass(frozen=True)
class Network:
    """A torch module that takes its inputs by position and gives a tensor, a tuple or a dict of tensors, rows first.

    name: of the model. module: in eval mode. example: real rows of every input, in the order of the module's
    arguments. outputs: their names, in order. labels, batching, store: for the package. provenance: what was done so
    far; `steps` in it lists the recipe's steps. origin: the reference `module:factory` it came from.
    shapes: of every input in their order, without rows, -1 where an exported model must take any size; if empty, only
    the number of rows varies. tolerance: by how much exports may differ more than float arithmetic does, in units of
    1 + the output's largest absolute value: integer kernels round ties in their own ways. allow_nan: whether float
    inputs may hold NaN and infinity.
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
    shapes: tuple[tuple[int, ...], ...] = ()
    tolerance: float = 0.0
    allow_nan: bool = True

    def copy(self) -> Network:
        """Return a copy with weights of its own, for a step to change."""
        return dataclasses.replace(self, module=copy.deepcopy(self.module), provenance=copy.deepcopy(self.provenance))

    def with_step(self, module: nn.Module, step: dict[str, Any]) -> Network:
        """Return a network with another module, and with the step that made it in its provenance."""
        steps = [*self.provenance.get("steps", []), step]
        return dataclasses.replace(self, module=module, provenance={**self.provenance, "steps": steps})

    def arguments(self, inputs: Mapping[str, NDArray[Any]]) -> tuple[Tensor, ...]:
        """Return rows as the module takes them, by position. Raises DataError when an input is missing."""
        missing = [name for name in self.example if name not in inputs]
        if missing:
            raise DataError(
                f"the rows lack the input {missing[0]!r} of network {self.name!r}; they have: {', '.join(inputs)}"
            )
        return tuple(as_tensor(inputs[name]) for name in self.example)

    def named(self, result: object) -> dict[str, Tensor]:
        """Return the module's results as tensors under the names of `outputs`, in their order.

        Raises CompressionError when it returned something else.
        """
        tensors = flatten(result, self.outputs)
        if len(tensors) != len(self.outputs):
            raise CompressionError(
                f"network {self.name!r} gives {len(tensors)} outputs, but {len(self.outputs)} names: "
                f"{', '.join(self.outputs)}; name each of them"
            )
        return dict(zip(self.outputs, tensors, strict=True))

    def infer(self, inputs: Mapping[str, NDArray[Any]], *, batch_rows: int = 256) -> Tensors:
        """Run the module, as it is, over any number of rows without gradients; gives every output, rows first."""
        rows = len(next(iter(inputs.values())))
        parts = []
        with torch.no_grad():  # not inference_mode: what a module caches during it could never be trained with
            for start in range(0, max(rows, 1), batch_rows):
                batch = {name: inputs[name][start : start + batch_rows] for name in inputs}
                named = self.named(self.module(*self.arguments(batch)))
                parts.append({name: as_array(tensor) for name, tensor in named.items()})
        return {name: np.concatenate([part[name] for part in parts]) for name in self.outputs}

    def positional(self) -> nn.Module:
        """Return a module of the same weights that returns a tuple in the order of `outputs`, for tracers."""
        return _Positional(self.module, self.outputs)


class _Positional(nn.Module):
    def __init__(self, module: nn.Module, outputs: tuple[str, ...]) -> None:
        super().__init__()
        self.network = module
        self._outputs = outputs
        self.training = module.training

    def forward(self, *inputs: Tensor) -> tuple[Tensor, ...]:
        return tuple(flatten(self.network(*inputs), self._outputs))


def flatten(result: object, names: Sequence[str] = ()) -> list[Tensor]:
    """Return the tensors of a tensor, sequence or mapping; of a mapping those under `names`, or all.

    Raises CompressionError for anything else, such as tuples within tuples.
    """
    if isinstance(result, Tensor):
        return [result]
    if isinstance(result, Mapping):
        absent = [name for name in names if name not in result]
        if absent:
            raise CompressionError(
                f"the network gives no output {absent[0]!r}; it gives: {', '.join(map(str, result))}"
            )
        items = [result[name] for name in names] if names else list(result.values())
    elif isinstance(result, Sequence) and not isinstance(result, str | bytes):
        items = list(result)
    else:
        items = [result]
    for item in items:
        if not isinstance(item, Tensor):
            raise CompressionError(
                f"the network gives a {type(item).__name__} among its outputs; its forward must return a tensor, "
                "a tuple of tensors or a dict of tensors"
            )
    return items


def as_tensor(array: NDArray[Any]) -> Tensor:
    """Return an array as a tensor of its datatype, sharing memory where torch allows. Raises DataError for BYTES."""
    # torch warns of arrays that can't be written to, as those out of a message or a mapped file.
    plain = np.require(array, requirements=["C", "W"])
    if plain.dtype == DTYPES["BF16"]:
        return torch.from_numpy(plain.view(np.int16)).view(torch.bfloat16)
    try:
        return torch.from_numpy(plain)
    except TypeError:
        raise DataError(f"torch has no datatype for numpy's {plain.dtype}; give numbers") from None


def as_array(tensor: Tensor) -> NDArray[Any]:
    """Return a tensor as an array of the same datatype."""
    plain = tensor.detach().cpu().contiguous()
    if plain.dtype == torch.bfloat16:
        return plain.view(torch.int16).numpy().view(DTYPES["BF16"])
    return plain.numpy()
