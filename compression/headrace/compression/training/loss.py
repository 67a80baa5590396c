"""The loss of a training, and the choice of the output that it is computed from. Imports torch."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final, Literal, TypeAlias

import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

from headrace.compression.data.probabilities import are_probabilities
from headrace.compression.errors import DataError
from headrace.compression.networks.network import Network
from headrace.contracts import Tensors

Kind: TypeAlias = Literal["classes", "values"]

#: A class that a row without label has.
NO_CLASS: Final = -1

#: Softmax in FP32 gives plain 0 below this, whose logarithm could not be trained with.
_LEAST_PROBABILITY: Final = 1e-12


@dataclass(frozen=True)
class Objective:
    """The loss of one output.

    kind: classes (scores, the last dimension being the classes) or values. probabilities: whether the network gives
    these rather than logits. temperature, alpha: see Training.
    """

    output: str
    kind: Kind
    probabilities: bool
    temperature: float
    alpha: float

    def loss(self, given: Tensor, labels: Tensor | None, targets: Tensor | None) -> Tensor:
        """Return the mean loss of a batch.

        given: the network's output. labels: classes, or values of its shape; NO_CLASS or NaN for none. targets: the
        teacher's output: logits, or values of its shape.
        """
        if self.kind == "classes":
            scores = logits_of(given, probabilities=self.probabilities)
            hard = None if labels is None else _cross_entropy(scores, labels)
            soft = None if targets is None else self._divergence(scores, targets)
        else:
            hard = None if labels is None else _squared_error(given, labels)
            soft = None if targets is None else functional.mse_loss(given, targets)
        if soft is None:
            assert hard is not None
            total, count = hard
            return total / max(count, 1)
        if hard is None:
            return soft
        # Rows without a label count as rows: the fewer labels a batch has, the less they weigh in it.
        rows = given.numel() if self.kind == "values" else scores[..., 0].numel()
        return self.alpha * soft + (1 - self.alpha) * hard[0] / rows

    def _divergence(self, scores: Tensor, targets: Tensor) -> Tensor:
        """T² · KL(teacher ‖ student), both softened by the temperature T; T² keeps the gradients' size."""
        student = functional.log_softmax(scores.flatten(0, -2) / self.temperature, dim=-1)
        teacher = functional.log_softmax(targets.flatten(0, -2) / self.temperature, dim=-1)
        return functional.kl_div(student, teacher, log_target=True, reduction="batchmean") * self.temperature**2


def _cross_entropy(scores: Tensor, labels: Tensor) -> tuple[Tensor, int]:
    total = functional.cross_entropy(scores.flatten(0, -2), labels.flatten(), ignore_index=NO_CLASS, reduction="sum")
    return total, int((labels != NO_CLASS).sum())


def _squared_error(given: Tensor, labels: Tensor) -> tuple[Tensor, int]:
    values = labels.reshape(given.shape)
    known = ~values.isnan()
    return functional.mse_loss(given[known], values[known], reduction="sum"), int(known.sum())


def logits_of(given: Tensor, *, probabilities: bool) -> Tensor:
    """Return scores whose softmax is the probabilities of the classes, [rows, …, classes].

    A last dimension of 1 is the score of the second of two classes.
    """
    scores = given.float()
    if scores.shape[-1] == 1:
        scores = torch.cat([1 - scores if probabilities else torch.zeros_like(scores), scores], dim=-1)
    return scores.clamp_min(_LEAST_PROBABILITY).log() if probabilities else scores


def choose(network: Network, labels: NDArray[Any] | None, taught: Tensors | None) -> tuple[str, Kind]:
    """Find the output that is trained, and its kind.

    labels: whole numbers (classes), other numbers (values), or None. taught: what the teacher gives for the example.
    Raises DataError when no output fits.
    """
    outputs = {name: array for name, array in network.infer(network.example).items() if array.dtype.kind == "f"}
    if labels is None:
        assert taught is not None
        return _like_the_teacher(network, outputs, taught)
    fitting = _of_classes(network, outputs, labels) if labels.dtype.kind == "i" else _of_values(outputs, labels)
    if not fitting:
        given = "; ".join(f"{name} {list(array.shape[1:])}" for name, array in outputs.items()) or "none"
        what = f"classes up to {labels.max()}" if labels.dtype.kind == "i" else "values"
        raise DataError(
            f"labels of shape {list(labels.shape[1:])} with {what} fit no output of numbers that network "
            f"{network.name!r} gives: {given} (without rows); give the labels it was made for: "
            "whole numbers are classes, others are values"
        )
    return fitting[0], "classes" if labels.dtype.kind == "i" else "values"


def _of_classes(network: Network, outputs: Tensors, labels: NDArray[Any]) -> list[str]:
    """Name the outputs that may be scores: of the known number of classes first, then the fewest; logits first."""
    highest = int(labels.max())
    able = {
        name: array
        for name, array in outputs.items()
        if array.ndim == labels.ndim + 1 and (array.shape[-1] > highest if array.shape[-1] > 1 else highest <= 1)
    }
    return sorted(
        able,
        key=lambda name: (
            able[name].shape[-1] != (len(network.labels) or highest + 1),
            able[name].shape[-1],
            are_probabilities(able[name]),
        ),
    )


def _of_values(outputs: Tensors, labels: NDArray[Any]) -> list[str]:
    shape = labels.shape[1:]
    return [name for name, array in outputs.items() if array.shape[1:] in {shape, (*shape, 1)}]


def _like_the_teacher(network: Network, outputs: Tensors, taught: Tensors) -> tuple[str, Kind]:
    for name, array in outputs.items():
        if find_taught(name, array.shape[1:], taught) is not None:
            classes = bool(network.labels) and array.shape[-1] == len(network.labels)
            target = taught[find_taught(name, array.shape[1:], taught) or name]
            scores = array.ndim > 1 and (classes or are_probabilities(array) or are_probabilities(target))
            return name, "classes" if scores else "values"
    raise DataError(
        f"teacher and student have no output in common: network {network.name!r} gives numbers as "
        f"{_shapes(outputs)}, the teacher as {_shapes(taught)} (without rows)"
    )


def find_taught(name: str, shape: tuple[int, ...], taught: Tensors) -> str | None:
    """Name the teacher's output that matches a student's: of its name and shape, or the first of its shape."""
    able = [key for key, array in taught.items() if array.dtype.kind == "f" and array.shape[1:] == shape]
    return name if name in able else next(iter(able), None)


def _shapes(arrays: Tensors) -> str:
    return ", ".join(f"{name} {list(array.shape[1:])}" for name, array in arrays.items() if array.dtype.kind == "f")
