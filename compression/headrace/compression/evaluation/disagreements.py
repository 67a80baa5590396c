"""Rows for which a compressed model answers differently from the original."""

from __future__ import annotations

import math

import msgspec
import numpy as np
from numpy.typing import NDArray

from headrace.compression.data.dataset import Dataset
from headrace.compression.evaluation.evaluate import check_alike, not_finite
from headrace.compression.evaluation.metrics import NO_CLASS, Metric
from headrace.compression.evaluation.weighted_statistics import cosines
from headrace.contracts import Tensors


class Disagreement(msgspec.Struct, frozen=True, kw_only=True):
    """A row for which two models give different answers.

    row: in the dataset, from 0. origin: the row's number in the file it came from. label, original, compressed: the
    class (its name if the package has labels) or the number; None for labels that aren't there and for tensors.
    original_confidence, compressed_confidence: each model's probability of what it says, if it tells.
    moved: for numbers the distance between the two, for tensors 1 − cosine; None for classes.
    """

    row: int
    origin: int
    label: str | float | None
    original: str | float | None
    compressed: str | float | None
    original_confidence: float | None = None
    compressed_confidence: float | None = None
    moved: float | None = None


def disagreements(
    original: Tensors, compressed: Tensors, dataset: Dataset, metric: Metric, limit: int = 20
) -> list[Disagreement]:
    """Return the rows for which the compressed model answers differently from the original, the worst first.

    For classes: rows that the original got right and the compressed model gets wrong (without labels: any that
    differ), those first of which it is surest. For numbers and tensors: the rows that moved most.
    """
    check_alike(compressed, original, metric, len(dataset))
    if metric.kind in {"ids", "text"} or (metric.kind == "scores" and metric.family in {"classes", "agreement", "auc"}):
        return _class_disagreements(original, compressed, dataset, metric, limit)
    return _number_disagreements(original, compressed, dataset, metric, limit)


def _class_disagreements(
    original: Tensors, compressed: Tensors, dataset: Dataset, metric: Metric, limit: int
) -> list[Disagreement]:
    before, after = metric.classes(original), metric.classes(compressed)
    truth = metric.truth(dataset.labels) if metric.needs_labels else None
    lost = (before != after) & (True if truth is None else before == truth)
    confidences = (metric.confidence(original, before), metric.confidence(compressed, after, original))
    rows = np.flatnonzero(lost)
    if confidences[1] is not None:
        rows = rows[np.argsort(-np.nan_to_num(confidences[1][rows], nan=2.0), kind="stable")]
    origins = dataset.origins()
    return [
        Disagreement(
            row=int(row),
            origin=int(origins[row]),
            label=None if truth is None else _class_name(truth[row], metric),
            original=_class_name(before[row], metric),
            compressed=_class_name(after[row], metric),
            original_confidence=_number(confidences[0], row),
            compressed_confidence=_number(confidences[1], row),
        )
        for row in rows[:limit]
    ]


def _number_disagreements(
    original: Tensors, compressed: Tensors, dataset: Dataset, metric: Metric, limit: int
) -> list[Disagreement]:
    before, after = metric.numbers(original), metric.numbers(compressed)
    one = before.shape[1] == 1
    with np.errstate(invalid="ignore"):
        far = np.abs(after - before).mean(axis=1) if metric.family != "cosine" else 1 - cosines(after, before)
    # Rows that became non-finite count as infinitely far; rows non-finite in the original are ignored.
    moved = np.where(np.isfinite(far), far, np.inf)
    moved[(before == after).all(axis=1) | not_finite(before)] = 0
    rows = np.argsort(-moved, kind="stable")[:limit]
    origins = dataset.origins()
    labels = metric.targets(dataset.labels) if metric.needs_labels else None
    return [
        Disagreement(
            row=int(row),
            origin=int(origins[row]),
            label=_number(labels[:, 0], row) if one and labels is not None else None,
            original=_number(before[:, 0], row) if one else None,
            compressed=_number(after[:, 0], row) if one else None,
            moved=_number(moved, row),
        )
        for row in rows
        if moved[row] > 0
    ]


def _class_name(number: np.int64, metric: Metric) -> str | None:
    if number == NO_CLASS:
        return None
    return metric.names[number] if 0 <= number < len(metric.names) else str(number)


def _number(values: NDArray[np.float64] | None, row: np.intp) -> float | None:
    """Return one of the numbers for JSON: None if it isn't finite."""
    if values is None or not math.isfinite(values[row]):
        return None
    return float(values[row])
