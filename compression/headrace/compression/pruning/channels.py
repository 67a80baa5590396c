"""Structured pruning: whole channels go, with all that is made of them in other layers, so that the network is smaller.

What hangs together is found by Torch-Pruning's dependency graph (Fang et al. 2023, arXiv:2301.12900).
"""

from __future__ import annotations

from dataclasses import KW_ONLY, dataclass
from typing import TYPE_CHECKING, Any, Final, Literal

from headrace.compression.errors import CompressionError, MissingLibrary, NotApplicable
from headrace.compression.networks.flops import parameters_of
from headrace.compression.networks.loading import need_torch
from headrace.compression.pruning.allocation import Sizes, plan_removal
from headrace.compression.pruning.fine_tuning import FineTuning, check_rows, tune
from headrace.compression.steps import StepContext, step_record
from headrace.compression.training.train import checkpoint_folder

if TYPE_CHECKING:
    from headrace.compression.networks.network import Network

#: Channels that a vector unit works on at once: ONNX Runtime on 16 with AVX-512 and 8 with AVX2. 17 channels take the
#: time of 32 there, and break the layout of the next layer as well: three layers of (16, 17, 16) channels took twice as
#: long as (16, 16, 16).
ROUND_TO: Final = 16


@dataclass(frozen=True)
class PruneChannels(FineTuning):
    """Iterative removal of the least important channels, each time followed by training with the original as teacher.

    ratio: share of the channels that go, of all layers together; as near as rounding allows. rounds: parts; after each
    the network is fine-tuned. criterion: what a channel is worth: `taylor`, by how much the distillation loss would
    rise without it, to second order (Theis et al. 2018, arXiv:1801.05787; needs rows), or `magnitude` of its weights.
    round_to: multiple that channels are kept in, see ROUND_TO; 1 for none. keep_least: share of its channels that each
    layer keeps. The others: see FineTuning; epochs are of all rounds together, 0 leaves fine-tuning out.

    Channels that reach an output stay, so that outputs keep their shapes.
    """

    ratio: float = 0.5
    rounds: int = 2
    criterion: Literal["taylor", "magnitude"] = "taylor"
    round_to: int = ROUND_TO
    keep_least: float = 0.2
    _: KW_ONLY
    epochs: int = 40
    learning_rate: float = 3e-3
    copies: int = 3

    def __post_init__(self) -> None:
        """Refuse what can't be meant."""
        if not 0 < self.ratio < 1 or not 0 <= self.keep_least < 1:
            raise CompressionError(
                f"ratio must lie between 0 and 1, and keep_least in 0..1: {self.ratio}, {self.keep_least}"
            )
        if self.rounds < 1 or self.round_to < 1 or self.epochs < 0:
            raise CompressionError("pruning needs rounds and round_to of at least 1, and epochs of at least 0")
        if self.criterion not in {"taylor", "magnitude"}:
            raise CompressionError(f"there is no criterion {self.criterion!r}; known are taylor and magnitude")

    def change(self, network: Network, context: StepContext) -> Network:
        """Return a smaller network of the same inputs and outputs.

        Raises NotApplicable when it has no channels that can go, DataError without rows to train with.
        """
        need_torch("pruning")
        try:
            import torch_pruning  # noqa: F401
        except ImportError as exc:
            raise MissingLibrary("pruning channels", "torch") from exc
        check_rows(
            context,
            needed=self.epochs > 0 or self.criterion == "taylor",
            without="PruneChannels(epochs=0, criterion='magnitude')",
        )
        from headrace.compression.pruning.dependency_groups import removable

        pruned = network.copy()
        initial = removable(pruned)
        if not initial:
            raise NotApplicable(
                f"network {network.name!r} has no channels that could go without changing its outputs; "
                "quantize it, or teach a smaller one"
            )
        history = []
        for part in range(1, self.rounds + 1):
            pruned, record = self._round(pruned, network, context, (part, initial))
            history.append(record)
        if not any(part["removed_share"] for part in history):
            raise NotApplicable(
                f"no layer of network {network.name!r} has channels to spare at a ratio of {self.ratio} in multiples "
                f"of {self.round_to}; raise the ratio or lower round_to"
            )
        record = {
            **step_record(self),
            "channels": {name: [initial[name], size] for name, size in removable(pruned, list(initial)).items()},
            "parameters": [parameters_of(network.module), parameters_of(pruned.module)],
            "history": history,
        }
        return network.with_step(pruned.module, record)

    def _round(
        self, pruned: Network, original: Network, context: StepContext, at: tuple[int, dict[str, int]]
    ) -> tuple[Network, dict[str, Any]]:
        """Remove a part and fine-tune. at: the number of the round, and the channels at the start of all rounds."""
        from headrace.compression.pruning.dependency_groups import remove
        from headrace.compression.pruning.importance import savings_of, scores_of
        from headrace.compression.training.loop import computing

        part, initial = at
        context.progress(part - 1, self.rounds, f"removing channels, round {part}")
        with computing(context.threads):
            scores = scores_of(self.criterion, pruned, list(initial), context, self.temperature)
            plan = plan_removal(
                scores,
                initial,
                self.ratio * part / self.rounds,
                sizes=Sizes(self.round_to, self.keep_least),
                savings=savings_of(pruned, list(initial)),
            )
            remove(pruned, plan)
        kept = sum(len(values) - len(plan.get(name, ())) for name, values in scores.items())
        record: dict[str, Any] = {"removed_share": 1 - kept / sum(initial.values())}
        epochs = self._epochs(part)
        if not epochs or not (plan or part == self.rounds):
            return pruned, record
        folder = checkpoint_folder(context, self) / f"round-{part}"
        trained = tune(pruned, original, context, self, epochs=epochs, checkpoints=folder)
        return trained.network, {**record, **trained.record}

    def _epochs(self, part: int) -> int:
        """Distribute the epochs: few between cuts, most after the last one, which repairs the loss of all."""
        early = self.epochs // (2 * self.rounds)
        return early if part < self.rounds else self.epochs - early * (self.rounds - 1)
