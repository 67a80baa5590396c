"""The arithmetic of metrics, for weighted rows: weights [resamples, rows] → one value a resample.

With weights of one these are the textbook figures; with the counts of a resample, their bootstrap. A value that is
undefined for the rows drawn (no row of a class, labels that are all the same) is NaN.
"""

from __future__ import annotations

from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

from headrace.compression.evaluation.bootstrap import Statistic

Floats: TypeAlias = NDArray[np.float64]
Ids: TypeAlias = NDArray[np.int64]


def mean(per_row: Floats) -> Statistic:
    """Mean of a figure of each row."""
    return lambda weights: weights @ per_row / weights.sum(axis=1)


def root_mean(per_row: Floats) -> Statistic:
    """Root of the mean of a figure of each row, such as its squared error."""
    return lambda weights: np.sqrt(weights @ per_row / weights.sum(axis=1))


def row_means(values: Floats) -> Floats:
    """Mean of each row of [rows, n]."""
    means: Floats = values.mean(axis=1)
    return means


def cosines(said: Floats, expected: Floats) -> Floats:
    """Cosine of each row [rows, n] of one array to that of the other; 1 for two zero vectors, 0 for one."""
    lengths = np.linalg.norm(said, axis=1) * np.linalg.norm(expected, axis=1)
    both_zero = ~said.any(axis=1) & ~expected.any(axis=1)
    products = np.einsum("rn,rn->r", said, expected)
    cosine = np.divide(products, lengths, out=np.zeros_like(products), where=lengths > 0)
    return np.where(both_zero, 1.0, np.clip(cosine, -1, 1))


def balanced_accuracy(truth: Ids, said: Ids) -> Statistic:
    """Mean over the classes in the labels of the share of their rows that are right."""
    classes, codes = np.unique(truth, return_inverse=True)
    right = (truth == said).astype(np.float64)
    count = len(classes)

    def statistic(weights: Floats) -> Floats:
        return _mean_of_defined(_ratio(_sums(weights * right, codes, count), _sums(weights, codes, count)))

    return statistic


def macro_f1(truth: Ids, said: Ids, *, no_class: int) -> Statistic:
    """Mean over the classes, in labels or outputs, of 2·tp / (2·tp + fp + fn). no_class: an id that is none."""
    classes, codes = np.unique(np.concatenate([truth, said]), return_inverse=True)
    true_codes, said_codes = codes[: len(truth)], codes[len(truth) :]
    right = (truth == said).astype(np.float64)
    real = classes != no_class
    count = len(classes)

    def statistic(weights: Floats) -> Floats:
        hits = _sums(weights * right, true_codes, count)
        f1 = _ratio(2 * hits, _sums(weights, true_codes, count) + _sums(weights, said_codes, count))
        return _mean_of_defined(f1[:, real])

    return statistic


def auc(truth: Ids, ranking: Floats) -> Statistic:
    """Area under the ROC curve: how often a row of the class ranks above one of another, ties counting half.

    ranking: [rows, 1], higher for class 1 than for class 0; or [rows, classes], and then the mean over the classes,
    each against the rest (Fawcett 2006), of those that labels have.
    """
    classes = [1] if ranking.shape[1] == 1 else range(ranking.shape[1])
    one_by_one = [_area(truth == number, ranking[:, column]) for column, number in enumerate(classes)]
    return lambda weights: _mean_of_defined(np.stack([area(weights) for area in one_by_one], axis=1))


def _area(positive: NDArray[np.bool_], ranking: Floats) -> Statistic:
    order = np.argsort(ranking, kind="stable")
    ranked = ranking[order]
    is_positive = positive[order].astype(np.float64)
    starts = np.flatnonzero(np.concatenate([[True], ranked[1:] != ranked[:-1]]))
    has_ties = len(starts) < len(ranked)

    def statistic(weights: Floats) -> Floats:
        negatives = np.take(weights, order, axis=1)
        positives = negatives * is_positive
        negatives -= positives
        if has_ties:
            positives = np.add.reduceat(positives, starts, axis=1)
            negatives = np.add.reduceat(negatives, starts, axis=1)
        below = np.cumsum(negatives, axis=1)
        pairs = positives.sum(axis=1) * below[:, -1]
        # Of the rows with the very same rank, half are counted as below.
        negatives /= 2
        below -= negatives
        return _ratio(np.einsum("rn,rn->r", positives, below), pairs)

    return statistic


def r2(targets: Floats, errors: Floats) -> Statistic:
    """Mean over the numbers of a row of 1 − squared error / squared distance of the labels from their mean."""
    centred = targets - targets.mean(axis=0)
    squared_errors = np.square(errors)

    def statistic(weights: Floats) -> Floats:
        rows = weights.sum(axis=1, keepdims=True)
        spread = weights @ np.square(centred) - np.square(weights @ centred) / rows
        # What is left of equal labels after rounding is no spread; they may be far from the mean, or from zero.
        spread[spread <= 1e-12 * (weights @ np.maximum(np.square(targets), np.square(centred)))] = 0
        return _mean_of_defined(1 - _ratio(weights @ squared_errors, spread))

    return statistic


def _sums(weights: Floats, codes: NDArray[np.intp], count: int) -> Floats:
    """Add up the weights of the rows of each code: [resamples, count]."""
    order = np.argsort(codes, kind="stable")
    present, starts = np.unique(codes[order], return_index=True)
    sums = np.zeros((len(weights), count))
    sums[:, present] = np.add.reduceat(np.take(weights, order, axis=1), starts, axis=1)
    return sums


def _ratio(numerator: Floats, denominator: Floats) -> Floats:
    """Divide; NaN where the denominator is 0."""
    return np.divide(numerator, denominator, out=np.full_like(numerator, np.nan), where=denominator != 0)


def _mean_of_defined(values: Floats) -> Floats:
    """Mean over the columns, [resamples, columns] → [resamples], leaving out NaN."""
    defined = ~np.isnan(values)
    return _ratio(np.where(defined, values, 0.0).sum(axis=1), defined.sum(axis=1).astype(np.float64))
