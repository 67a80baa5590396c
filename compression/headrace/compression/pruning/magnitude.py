"""Pruning of single weights: they become zero and stay so; the network keeps its shape and, on a CPU, its speed."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import KW_ONLY, dataclass
from typing import TYPE_CHECKING, Any

from headrace.compression.errors import CompressionError, NotApplicable
from headrace.compression.networks.loading import need_torch
from headrace.compression.pruning.fine_tuning import FineTuning, check_rows, tune
from headrace.compression.steps import StepContext, step_record
from headrace.compression.training.options import Trained
from headrace.compression.training.train import checkpoint_folder

if TYPE_CHECKING:
    from torch import Tensor

    from headrace.compression.networks.network import Network


@dataclass(frozen=True)
class PruneMagnitude(FineTuning):
    """Iterative zeroing of the smallest weights of all layers together, while the others are trained.

    **It makes the compressed file smaller, not the model faster**: runtimes multiply by zero as by any other number.
    The record has the size under gzip before and after.

    sparsity: share of the weights of convolutions and linear layers that are zero at the end. rounds: it is approached
    in steps that grow smaller, 1 − (1 − r/rounds)³ of it (Zhu and Gupta 2017, arXiv:1710.01878). epochs: of all rounds
    together; 0 leaves fine-tuning out. The others: see FineTuning.
    """

    sparsity: float = 0.8
    rounds: int = 3
    _: KW_ONLY
    epochs: int = 30

    def __post_init__(self) -> None:
        """Refuse what can't be meant."""
        if not 0 < self.sparsity < 1 or self.rounds < 1 or self.epochs < 0:
            raise CompressionError("sparsity must lie between 0 and 1, rounds be at least 1 and epochs at least 0")

    def change(self, network: Network, context: StepContext) -> Network:
        """Return a network of the same shape with zeros in it.

        Raises NotApplicable when it has no weights to prune, DataError without rows to train with.
        """
        need_torch("pruning")
        from headrace.compression.pruning import masks

        check_rows(context, needed=self.epochs > 0, without="epochs=0")
        layers = masks.layers_of(network)
        if not layers:
            raise NotApplicable(f"network {network.name!r} has no convolution or linear layer to prune")
        pruned, records = network, []
        for part in range(1, self.rounds + 1):
            sparsity = self.sparsity * (1 - (1 - part / self.rounds) ** 3)
            chosen = masks.smallest(masks.layers_of(pruned), sparsity)
            pruned, record = self._round(pruned, network, context, (chosen, part))
            records.append(record)
        return network.with_step(
            pruned.module, {**step_record(self), **masks.facts(network, pruned), "history": records}
        )

    def _round(
        self, pruned: Network, original: Network, context: StepContext, at: tuple[dict[str, Tensor], int]
    ) -> tuple[Network, dict[str, Any]]:
        """Hold the masks of a round while the others train. at: masks by layer, number of the round."""
        chosen, part = at
        epochs = self.epochs // self.rounds + (self.epochs % self.rounds if part == self.rounds else 0)
        folder = checkpoint_folder(context, self) / f"round-{part}"

        def trained(held: Network) -> Trained:
            return tune(held, original, context, self, epochs=epochs, checkpoints=folder)

        return _with_masks(pruned, chosen, trained if epochs else None)


@dataclass(frozen=True)
class PruneNM(FineTuning):
    """N:M sparsity: the n largest of every m weights along the input channels are kept, and trained.

    **2:4 is for GPUs with sparse tensor cores** (Mishra et al. 2021, arXiv:2104.08378), when their runtime is told to
    use them; a CPU gains nothing by it. Layers whose input channels are no multiple of m stay as they are. epochs: 0
    leaves fine-tuning out. The others: see FineTuning.
    """

    n: int = 2
    m: int = 4
    _: KW_ONLY
    epochs: int = 20

    def __post_init__(self) -> None:
        """Refuse what can't be meant."""
        if not 0 < self.n < self.m or self.epochs < 0:
            raise CompressionError(f"n must lie between 0 and m, and epochs be at least 0: {self.n}:{self.m}")

    def change(self, network: Network, context: StepContext) -> Network:
        """Return a network of the same shape with zeros in it.

        Raises NotApplicable when no layer has a multiple of m input channels, DataError without rows to train with.
        """
        need_torch("pruning")
        from headrace.compression.pruning import masks

        check_rows(context, needed=self.epochs > 0, without="epochs=0")
        chosen = masks.n_of_m(masks.layers_of(network), self.n, self.m)
        if not chosen:
            raise NotApplicable(
                f"no layer of network {network.name!r} has a multiple of {self.m} input channels to prune {self.n} of"
            )
        folder = checkpoint_folder(context, self) / "round-1"

        def trained(held: Network) -> Trained:
            return tune(held, network, context, self, epochs=self.epochs, checkpoints=folder)

        pruned, record = _with_masks(network, chosen, trained if self.epochs else None)
        facts = {"layers": list(chosen), **masks.facts(network, pruned)}
        return network.with_step(pruned.module, {**step_record(self), **facts, **record})


def _with_masks(
    network: Network, chosen: dict[str, Tensor], trained: Callable[[Network], Trained] | None
) -> tuple[Network, dict[str, Any]]:
    """Return a copy with zeros by these masks, which stay fixed while it is trained; and the record of that."""
    from headrace.compression.pruning import masks

    held = network.copy()
    masks.hold(held, chosen)
    if trained is None:
        masks.release(held)
        return held, {}
    result = trained(held)
    masks.release(result.network)
    return result.network, result.record
