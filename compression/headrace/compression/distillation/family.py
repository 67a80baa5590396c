"""Students of the efficient families: a lighter architecture learns to answer as the network does."""

from __future__ import annotations

from dataclasses import KW_ONLY, dataclass
from typing import TYPE_CHECKING

from headrace.compression.errors import CompressionError, DataError
from headrace.compression.networks.architectures import FAMILIES, build
from headrace.compression.networks.flops import parameters_of
from headrace.compression.networks.loading import need_torch
from headrace.compression.pruning.fine_tuning import FineTuning, tune
from headrace.compression.steps import StepContext, step_record
from headrace.compression.training.train import checkpoint_folder

if TYPE_CHECKING:
    from headrace.compression.networks.network import Network


@dataclass(frozen=True)
class DistillFamily(FineTuning):
    """Puts a network of a family of `architectures.FAMILIES` in the place of an image classifier.

    It is built for the same images and classes with random weights, gives the same outputs (labels, probabilities or
    logits), and learns from the network's answers (see `distillation`). The other options: see FineTuning.
    """

    family: str = "squeezenet"
    _: KW_ONLY
    epochs: int = 40
    copies: int = 3

    def __post_init__(self) -> None:
        """Refuse what can't be meant."""
        if self.family not in FAMILIES:
            raise CompressionError(f"there is no family {self.family!r}; known are: {', '.join(FAMILIES)}")

    def change(self, network: Network, context: StepContext) -> Network:
        """Return the student. Raises NotApplicable when the network is no image classifier, DataError without rows."""
        need_torch("distillation")
        from headrace.compression.distillation.classifier_head import WithHead, classifier_spec

        if not len(context.data.train):
            raise DataError(
                "a student needs rows to learn from, and there are none; give images (labels are welcome, not needed)"
            )
        classifier = classifier_spec(network, context.data.train.labels)
        module = WithHead(build(self.family, classifier.task, context.seed), classifier).eval()
        sizes = [parameters_of(network.module), parameters_of(module)]
        student = network.with_step(module, {})
        tuned = tune(student, network, context, self, epochs=self.epochs, checkpoints=checkpoint_folder(context, self))
        return network.with_step(tuned.network.module, {**step_record(self), "parameters": sizes, **tuned.record})
