"""The configuration of a search, and its result."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import msgspec

from headrace.compression.evaluation.evaluate import Evaluation
from headrace.compression.evaluation.max_drop import MaxDrop
from headrace.compression.evaluation.metrics import Metric
from headrace.compression.quantization.int8.sensitivity import LayerSensitivity
from headrace.compression.recipes.catalog import Runtime
from headrace.compression.search.trials import MIN_SPEEDUP, Trial, Verdict
from headrace.contracts import ConfigurationError


@dataclass(frozen=True)
class SearchConfig:
    """The configuration of a search.

    metric, bound: the largest loss that is allowed. runtime: where the result runs. at_rows: the batch size to optimize
    for; row_sizes: all that are measured. threads: of training and running. seconds: for timing a recipe, per row size.
    min_speedup: how many times as fast a product must be at least, unless it is smaller and no slower. exclude: nodes
    and operators that quantization leaves out, see `onnx_model.excluded`.
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
        """Raise ConfigurationError for a speed-up below 1, which would allow slower products."""
        if not 1 <= self.min_speedup < math.inf:
            raise ConfigurationError(f"min_speedup must be at least 1, not {self.min_speedup:g}")

    @property
    def device(self) -> str:
        """The device of all measurements: that of TensorRT for its engines, the CPU for all others."""
        return "tensorrt" if self.runtime == "tensorrt" else "cpu"


class SearchResult(msgspec.Struct, frozen=True, kw_only=True):
    """The result of a search.

    baseline: the original on the selection and on the test rows; original_bytes: its files. attempts: all trials, in
    their order. front: recipes that none beats in everything, and `trials.ORIGINAL` if none beats that. chosen: the
    recipe to promote, "" if none. sensitivity: of the original's layers to int8, most sensitive first;
    sensitivity_note: why there is none. min_speedup: as of the configuration. record: the sources, versions and hashes
    that a repetition needs.
    """

    model: str
    origin: str
    bound: float
    at_rows: int
    baseline: Evaluation
    baseline_test: Evaluation
    original_bytes: int
    attempts: tuple[Trial, ...]
    verdicts: tuple[Verdict, ...]
    front: tuple[str, ...]
    chosen: str = ""
    sensitivity: tuple[LayerSensitivity, ...] = ()
    sensitivity_note: str = ""
    min_speedup: float = MIN_SPEEDUP
    record: dict[str, Any]

    @property
    def winner(self) -> Trial | None:
        """The chosen trial, if there is one."""
        return next((trial for trial in self.attempts if trial.recipe == self.chosen), None)
