"""What a search might have found, without searching: figures are made up."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from headrace.compression.benchmarking.compare import Measurement, ModelFigures, RowFigures
from headrace.compression.benchmarking.conditions import Conditions
from headrace.compression.benchmarking.ratio import Ratio
from headrace.compression.benchmarking.timing import Timing
from headrace.compression.evaluation.disagreements import Disagreement
from headrace.compression.evaluation.evaluate import Evaluation
from headrace.compression.evaluation.max_drop import MaxDrop
from headrace.compression.quantization.int8.sensitivity import LayerSensitivity
from headrace.compression.search.result import SearchResult
from headrace.compression.search.trials import Trial, judge, pareto

ROWS = (1, 8, 64)
BYTES = 160_000


def an_evaluation(value: float = 0.98, drop: float | None = None, **changes: Any) -> Evaluation:
    width = None if drop is None else 0.002
    fields = {
        "metric": "accuracy",
        "output": "label",
        "unit": "points",
        "higher_is_better": True,
        "value": value,
        "low": value - 0.01,
        "high": min(1.0, value + 0.01),
        "rows": 300,
        "drop": drop,
        "drop_low": None if width is None or drop is None else drop - width,
        "drop_high": None if width is None or drop is None else drop + width,
    }
    return Evaluation(**{**fields, **changes})


def a_measurement(ratio: float, file_bytes: int = BYTES // 3, spread: float = 0.02) -> Measurement:
    def timing(rows: int, seconds: float) -> Timing:
        return Timing(seconds, seconds, 1.2 * seconds, rows / seconds, 100)

    def figures(size: int) -> ModelFigures:
        return ModelFigures("digits", "1", "ab" * 32, "onnxruntime", "1.32.0", size, 0.01, 58_000_000, 44_000_000)

    rows = tuple(
        RowFigures(
            count,
            timing(count, count * 1e-5 / ratio),
            timing(count, count * 1e-5),
            Ratio(ratio, ratio - spread, ratio + spread, 40),
        )
        for count in ROWS
    )
    where = Conditions("A processor", 2, "cpu", (1,), "2026-01-02T03:04:05+00:00", "3.11.7", 0.5)
    return Measurement(figures(file_bytes), figures(BYTES), rows, where)


def an_attempt(recipe: str, ratio: float = 2.0, drop: float = 0.001, **changes: Any) -> Trial:
    fields = {
        "recipe": recipe,
        "summary": f"what {recipe} does",
        "status": "measured",
        "selection": an_evaluation(0.98 - drop, drop),
        "measurement": a_measurement(ratio),
        "seconds": 3.0,
    }
    return Trial(**{**fields, **changes})


def a_disagreement(row: int = 0, **changes: Any) -> Disagreement:
    fields = {
        "row": row,
        "origin": 1200 + row,
        "label": "3",
        "original": "3",
        "compressed": "8",
        "original_confidence": 0.91,
        "compressed_confidence": 0.62,
    }
    return Disagreement(**{**fields, **changes})


def a_find(attempts: Sequence[Trial], **changes: Any) -> SearchResult:
    bound = MaxDrop(changes.get("bound", 0.005))
    verdicts = tuple(judge(attempt, bound, 64) for attempt in attempts)
    paying = [a for a, verdict in zip(attempts, verdicts, strict=True) if verdict.pays and a.test is not None]
    fields = {
        "model": "digits",
        "origin": "digits 1",
        "bound": bound.fraction,
        "at_rows": 64,
        "baseline": an_evaluation(0.98),
        "baseline_test": an_evaluation(0.985),
        "original_bytes": BYTES,
        "attempts": tuple(attempts),
        "verdicts": verdicts,
        "front": tuple(pareto(attempts, 64, BYTES)),
        "chosen": paying[0].recipe if paying else "",
        "sensitivity": (LayerSensitivity("conv_1", "Conv", 216, 21.5), LayerSensitivity("fc", "Gemm", 7680, 44.0)),
        "record": {
            "seed": 7,
            "original_sha256": "cd" * 32,
            "rows": {"train": 900, "test": 300},
            "data_sha256": {"train": "12" * 32, "test": "34" * 32},
            "versions": {"onnxruntime": "1.32.0"},
        },
    }
    return SearchResult(**{**fields, **changes})
