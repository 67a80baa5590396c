"""What a search is after, and what it found."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import msgspec

from headrace.compression.evaluation.evaluate import Evaluation, MaxDrop
from headrace.compression.evaluation.metrics import Metric
from headrace.compression.quantization.int8.sensitivity import LayerSensitivity
from headrace.compression.recipes.catalog import Runtime
from headrace.compression.search.trials import MIN_SPEEDUP, Attempt, Verdict
from headrace.contracts import ConfigurationError


@dataclass(frozen=True)
class Goal:
    """What a search is after.

    metric, bound: what may be lost at most. runtime: where the result runs. at_rows: the batch that is to be fast;
    row_sizes: all that are measured. threads: of training and running. seconds: that timing a recipe takes, a row size.
    min_speedup: how many times as fast a product must be at least, unless it is smaller and no slower. exclude: nodes
    and operators that quantization leaves out, see `quantization.excluded`.
    """

    metric: Metric
    bound: MaxDrop
    runtime: Runtime = "onnxruntime"
    at_rows: int = 64
    row_sizes: tuple[int, ...] = (1, 8, 64)
    threads: int = 1
    seed: int = 0
    seconds: float = 1.5
    min_speedup: float = MIN_SPEEDUP
    exclude: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        """Refuse a speed-up below 1, which would ask for what is slower."""
        if not 1 <= self.min_speedup < math.inf:
            raise ConfigurationError(f"min_speedup must be at least 1, not {self.min_speedup:g}")

    @property
    def device(self) -> str:
        """Where all is measured: TensorRT's engines run nowhere else, all others on the CPU."""
        return "tensorrt" if self.runtime == "tensorrt" else "cpu"


class Found(msgspec.Struct, frozen=True, kw_only=True):
    """What a search found.

    baseline: the original on the selection and on the test rows; original_bytes: its files. attempts: all, in the order
    they were tried. front: recipes that none beats in everything, and `attempts.ORIGINAL` if none beats that.
    chosen: the recipe that pays best, "" if none. sensitivity: of the original's layers to int8, most sensitive first;
    sensitivity_note: why there is none. min_speedup: as of the goal. record: sources, versions, hashes: what a
    repetition needs.
    """

    model: str
    origin: str
    bound: float
    at_rows: int
    baseline: Evaluation
    baseline_test: Evaluation
    original_bytes: int
    attempts: tuple[Attempt, ...]
    verdicts: tuple[Verdict, ...]
    front: tuple[str, ...]
    chosen: str = ""
    sensitivity: tuple[LayerSensitivity, ...] = ()
    sensitivity_note: str = ""
    min_speedup: float = MIN_SPEEDUP
    record: dict[str, Any]

    @property
    def winner(self) -> Attempt | None:
        """Give the attempt that was chosen, if one was."""
        return next((attempt for attempt in self.attempts if attempt.recipe == self.chosen), None)
