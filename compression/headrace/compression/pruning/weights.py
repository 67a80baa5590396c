"""Pruning of single weights: they become zero and stay so; the network keeps its shape and, on a CPU, its speed."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from headrace.compression.errors import CompressionError, DataError, NotApplicable
from headrace.compression.factory import need_torch
from headrace.compression.pruning.tuning import FineTuning, tune
from headrace.compression.recipe import Step, Workshop, step_record
from headrace.compression.training import checkpoint_folder

if TYPE_CHECKING:
    from torch import Tensor

    from headrace.compression.network import Network


@dataclass(frozen=True)
class PruneMagnitude:
    """Sets the smallest weights of all layers together to zero, more of them in each round, and trains the others.

    **It makes the compressed file smaller, not the model faster**: runtimes multiply by zero as by any other number.
    The record has the size under gzip before and after.

    sparsity: share of the weights of convolutions and linear layers that are zero at the end. rounds: it is approached
    in steps that grow smaller, 1 − (1 − r/rounds)³ of it (Zhu and Gupta 2017, arXiv:1710.01878). epochs: of all rounds
    together; 0 leaves fine-tuning out. The others: see FineTuning.
    """

    sparsity: float = 0.8
    rounds: int = 3
    epochs: int = 30
    learning_rate: float = 2e-3
    batch_rows: int = 64
    temperature: float = 4.0
    alpha: float = 0.9
    copies: int = 1

    def __post_init__(self) -> None:
        """Refuse what can't be meant."""
        if not 0 < self.sparsity < 1 or self.rounds < 1 or self.epochs < 0:
            raise CompressionError("sparsity must lie between 0 and 1, rounds be at least 1 and epochs at least 0")

    def change(self, network: Network, workshop: Workshop) -> Network:
        """Give a network of the same shape with zeros in it.

        Raises NotApplicable when it has no weights to prune, DataError without rows to train with.
        """
        need_torch("pruning")
        from headrace.compression.pruning import masks

        _check_rows(workshop, self.epochs)
        layers = masks.layers_of(network)
        if not layers:
            raise NotApplicable(f"network {network.name!r} has no convolution or linear layer to prune")
        pruned, records = network, []
        for part in range(1, self.rounds + 1):
            sparsity = self.sparsity * (1 - (1 - part / self.rounds) ** 3)
            chosen = masks.smallest(masks.layers_of(pruned), sparsity)
            tuning = self._tuning(part)
            folder = f"round-{part}"
            pruned, record = _with_masks(pruned, network, workshop, (self, chosen, tuning, folder))
            records.append(record)
        return network.with_step(
            pruned.module, {**step_record(self), **masks.facts(network, pruned), "history": records}
        )

    def _tuning(self, part: int) -> FineTuning:
        epochs = self.epochs // self.rounds + (self.epochs % self.rounds if part == self.rounds else 0)
        return FineTuning(epochs, self.learning_rate, self.batch_rows, self.temperature, self.alpha, self.copies)


@dataclass(frozen=True)
class PruneNM:
    """Keeps the n largest of every m weights along the input channels, and trains them.

    **2:4 is for GPUs with sparse tensor cores** (Mishra et al. 2021, arXiv:2104.08378), when their runtime is told to
    use them; a CPU gains nothing by it. Layers whose input channels are no multiple of m stay as they are. epochs: 0
    leaves fine-tuning out. The others: see FineTuning.
    """

    n: int = 2
    m: int = 4
    epochs: int = 20
    learning_rate: float = 2e-3
    batch_rows: int = 64
    temperature: float = 4.0
    alpha: float = 0.9
    copies: int = 1

    def __post_init__(self) -> None:
        """Refuse what can't be meant."""
        if not 0 < self.n < self.m or self.epochs < 0:
            raise CompressionError(f"n must lie between 0 and m, and epochs be at least 0: {self.n}:{self.m}")

    def change(self, network: Network, workshop: Workshop) -> Network:
        """Give a network of the same shape with zeros in it.

        Raises NotApplicable when no layer has a multiple of m input channels, DataError without rows to train with.
        """
        need_torch("pruning")
        from headrace.compression.pruning import masks

        _check_rows(workshop, self.epochs)
        chosen = masks.n_of_m(masks.layers_of(network), self.n, self.m)
        if not chosen:
            raise NotApplicable(
                f"no layer of network {network.name!r} has a multiple of {self.m} input channels to prune {self.n} of"
            )
        tuning = FineTuning(self.epochs, self.learning_rate, self.batch_rows, self.temperature, self.alpha, self.copies)
        pruned, record = _with_masks(network, network, workshop, (self, chosen, tuning, "round-1"))
        facts = {"layers": list(chosen), **masks.facts(network, pruned)}
        return network.with_step(pruned.module, {**step_record(self), **facts, **record})


def _check_rows(workshop: Workshop, epochs: int) -> None:
    if epochs and not len(workshop.data.train):
        raise DataError(
            "a pruned network must be trained again, and there are no rows to train it with; give rows of its inputs "
            "(labels are welcome, but not needed), or epochs=0"
        )


def _with_masks(
    network: Network, teacher: Network, workshop: Workshop, terms: tuple[Step, dict[str, Tensor], FineTuning, str]
) -> tuple[Network, dict[str, Any]]:
    """Give a copy that was trained with masks held. terms: the step, masks by layer, training, folder's name."""
    from headrace.compression.pruning import masks

    step, chosen, tuning, folder = terms
    held = network.copy()
    masks.hold(held, chosen)
    if not tuning.epochs:
        masks.release(held)
        return held, {}
    tuned = tune(held, teacher, workshop, tuning, checkpoint_folder(workshop, step) / folder)
    masks.release(tuned.network)
    return tuned.network, tuned.record
