"""Int8 in torch itself: PT2E quantization by torchao, from calibration alone or with quantization-aware training.

The quantized network has whole numbers for weights, and says in its graph where values are rounded to 8 bits; ONNX
Runtime and torch's compiler make integer arithmetic of that (Jacob et al. 2018, arXiv:1712.05877).
"""

from __future__ import annotations

import dataclasses
from dataclasses import KW_ONLY, dataclass
from typing import TYPE_CHECKING, Any, Final

from headrace.compression.errors import DataError, NotApplicable
from headrace.compression.networks.loading import need_torch
from headrace.compression.pruning.fine_tuning import FineTuning, tune
from headrace.compression.steps import StepContext, step_record
from headrace.compression.training.train import checkpoint_folder

if TYPE_CHECKING:
    from headrace.compression.networks.network import Network

#: A tie that one kernel rounds up and another down is a step of the next layer's 8 bits.
_TOLERANCE: Final = 0.05


@dataclass(frozen=True)
class Pt2eInt8(FineTuning):
    """Quantization of convolutions and linear layers: weights to int8 per channel, activations to uint8.

    trained: train with rounded weights and values, the network before as the teacher, so that it learns to do with
    them. The other options are for this alone; see FineTuning.
    """

    trained: bool = False
    _: KW_ONLY
    epochs: int = 15
    learning_rate: float = 3e-4

    def change(self, network: Network, context: StepContext) -> Network:
        """Return the quantized network, for inference only.

        Raises NotApplicable when there is nothing to quantize, DataError without rows to calibrate or train with.
        """
        need_torch("PT2E quantization")
        rows = context.data.train if self.trained else context.data.calibration
        if not len(rows):
            raise DataError(
                f"int8 needs rows to {'train' if self.trained else 'calibrate'} with, and there are none; "
                "give rows of the model's inputs"
            )
        from headrace.compression.quantization.pt2e.program import converted, need_torchao, prepared
        from headrace.compression.training.loop import computing

        need_torchao()

        with computing(context.threads):
            program = prepared(network, trained=self.trained)
            context.progress(0, 1, "calibrating")
            program.infer(context.data.calibration.inputs)
        record: dict[str, Any] = step_record(self)
        if self.trained:
            folder = checkpoint_folder(context, self)
            tuned = tune(program, network, context, self, epochs=self.epochs, checkpoints=folder)
            program, record = tuned.network, {**record, **tuned.record}
        with computing(context.threads):
            module, quantized = converted(program)
        if not quantized:
            raise NotApplicable(f"network {network.name!r} has no convolution or linear layer that PT2E could quantize")
        made = network.with_step(module, {**record, "quantized_layers": quantized})
        return dataclasses.replace(made, tolerance=max(network.tolerance, _TOLERANCE))
