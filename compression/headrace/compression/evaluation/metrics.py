"""Metrics of a model's outputs.

    of classes       accuracy, balanced-accuracy, f1      need labels that are class ids
    of scores        auc                                  the same
    of numbers       rmse, mae, r2                        need labels of the shape of the output
    of faithfulness  agreement, cosine                    need the outputs of the original model, no labels

An output is read as one of five kinds: `ids` (integers, one a row: the class), `text` (BYTES, one a row: the name of
the class), `scores` (floats, n a row: the class is the highest), `number` (a float, one a row), `tensor` (any other
floats). Anything else no metric reads.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final, Literal, TypeAlias

import numpy as np
from numpy.typing import NDArray

from headrace.compression.data.probabilities import INT8_ROUNDING, are_probabilities, softmax
from headrace.compression.errors import DataError
from headrace.compression.evaluation import weighted_statistics
from headrace.compression.evaluation.bootstrap import Statistic
from headrace.contracts import Tensors

Kind: TypeAlias = Literal["ids", "text", "scores", "number", "tensor", "other"]

Unit: TypeAlias = Literal["points", "relative"]

Family: TypeAlias = Literal["classes", "auc", "numbers", "agreement", "cosine"]

#: The class of a row whose scores are NaN, or whose text is no label: always wrong.
NO_CLASS: Final = -1


@dataclass(frozen=True)
class Metric:
    """One figure of merit of one output of a model.

    name: in METRICS. output: that it reads. kind: how that is read. scores: the output that holds the confidence in
    the class, or "". names: the package's labels. higher_is_better, needs_labels: else it compares with the original.
    unit: how a drop is counted: in points (of a share, 0..1), or relative to the original's value.
    """

    name: str
    output: str
    kind: Kind
    family: Family
    higher_is_better: bool = True
    unit: Unit = "points"
    scores: str = ""
    names: tuple[str, ...] = ()

    @property
    def needs_labels(self) -> bool:
        """Whether it can't be computed without labels."""
        return self.family not in {"agreement", "cosine"}

    def classes(self, outputs: Tensors) -> NDArray[np.int64]:
        """Return the predicted class of each row; NO_CLASS where there is none."""
        array = outputs[self.output]
        if self.kind == "scores":
            return _highest(array)
        flat = array.reshape(len(array))
        if self.kind == "text":
            index = {name.encode(): at for at, name in enumerate(self.names)}
            return np.array([index.get(bytes(text), NO_CLASS) for text in flat.tolist()], np.int64)
        return flat.astype(np.int64)

    def confidence(
        self, outputs: Tensors, classes: NDArray[np.int64], reference: Tensors | None = None
    ) -> NDArray[np.float64] | None:
        """Return the probability that a model gives to a class of each row; None when it gives none.

        reference: the original's outputs, which tell probabilities from logits: a compressed model rounds its own; the
        outputs themselves if None. NaN for NO_CLASS.
        """
        if self.scores not in outputs:
            return None
        scores = outputs[self.scores].astype(np.float64)
        if not are_probabilities((reference or outputs)[self.scores], rounding=INT8_ROUNDING):
            scores = softmax(scores)
        known = (classes >= 0) & (classes < scores.shape[1])
        chosen = np.take_along_axis(scores, np.where(known, classes, 0)[:, None], axis=1)[:, 0]
        return np.where(known, chosen, np.nan)

    def contributions(
        self, outputs: Tensors, labels: NDArray[Any] | None, reference: Tensors
    ) -> NDArray[np.float64] | None:
        """Return the contribution of each row to the metric: 1 or 0 for a right or wrong class, the error, the cosine.

        None for balanced-accuracy, f1, auc and r2, which are no means over rows.
        """
        match self.name:
            case "accuracy":
                return _as_shares(self.classes(outputs) == self.truth(labels))
            case "agreement":
                said, expected = self.classes(outputs), self.classes(reference)
                return _as_shares((said == expected) & (said != NO_CLASS))
            case "cosine":
                return weighted_statistics.cosines(self.numbers(outputs), self.numbers(reference))
            case "mae":
                return weighted_statistics.row_means(np.abs(self.errors(outputs, labels)))
            case "rmse":
                return weighted_statistics.row_means(np.square(self.errors(outputs, labels)))
            case _:
                return None

    def statistic(self, outputs: Tensors, labels: NDArray[Any] | None, reference: Tensors) -> Statistic:
        """Prepare the metric of some rows, for any weights of them.

        reference: what the original model says of the same rows. Raises DataError for labels that don't fit.
        """
        if (rows := self.contributions(outputs, labels, reference)) is not None:
            return weighted_statistics.root_mean(rows) if self.name == "rmse" else weighted_statistics.mean(rows)
        match self.name:
            case "balanced-accuracy":
                return weighted_statistics.balanced_accuracy(self.truth(labels), self.classes(outputs))
            case "f1":
                return weighted_statistics.macro_f1(self.truth(labels), self.classes(outputs), no_class=NO_CLASS)
            case "auc":
                return weighted_statistics.auc(self.truth(labels), self._ranking(outputs, reference))
            case _:
                return weighted_statistics.r2(self.targets(labels), self.errors(outputs, labels))

    def value(self, outputs: Tensors, labels: NDArray[Any] | None = None, reference: Tensors | None = None) -> float:
        """Compute the metric over all rows; NaN where it is undefined. reference: the outputs themselves if None."""
        rows = len(outputs[self.output])
        return float(self.statistic(outputs, labels, reference or outputs)(np.ones((1, rows)))[0])

    def numbers(self, outputs: Tensors) -> NDArray[np.float64]:
        """Return the output as FP64 [rows, numbers of a row]."""
        array = outputs[self.output]
        return array.reshape(len(array), -1).astype(np.float64)

    def truth(self, labels: NDArray[Any] | None) -> NDArray[np.int64]:
        """Return labels as class ids. Raises DataError when they aren't."""
        ids = class_ids(labels)
        if ids is None:
            raise DataError(f"metric {self.name!r} needs labels that are class ids, one a row")
        return ids

    def targets(self, labels: NDArray[Any] | None) -> NDArray[np.float64]:
        """Return labels as FP64 [rows, numbers of a row]. Raises DataError without labels."""
        if labels is None:
            raise DataError(f"metric {self.name!r} needs labels; name their column with --label")
        return labels.reshape(len(labels), -1).astype(np.float64)

    def errors(self, outputs: Tensors, labels: NDArray[Any] | None) -> NDArray[np.float64]:
        """Return output minus labels, FP64 [rows, numbers of a row]. Raises DataError when they have other shapes."""
        said, targets = self.numbers(outputs), self.targets(labels)
        if said.shape != targets.shape:
            raise DataError(
                f"labels of the shape {list(targets.shape)} can't be compared with output {self.output!r} of "
                f"{list(said.shape)}; give as many numbers a row"
            )
        return said - targets

    def _ranking(self, outputs: Tensors, reference: Tensors) -> NDArray[np.float64]:
        """Return the scores that rank the rows by class, [rows, classes]; one column for two classes. NaN is last."""
        scores = self.numbers(outputs)
        if scores.shape[1] == 2:
            # The same order as that of the probability, and no rounding to 0 and 1 makes ties.
            scores = scores[:, 1:] - scores[:, :1]
        elif scores.shape[1] > 2 and not are_probabilities(self.numbers(reference), rounding=INT8_ROUNDING):
            scores = softmax(scores)
        return np.where(np.isnan(scores), -np.inf, scores)


def _as_shares(right: NDArray[np.bool_]) -> NDArray[np.float64]:
    return right.astype(np.float64)


def _highest(scores: NDArray[Any]) -> NDArray[np.int64]:
    numbers = scores.astype(np.float64)
    return np.where(np.isnan(numbers).any(axis=1), NO_CLASS, numbers.argmax(axis=1)).astype(np.int64)


def class_ids(labels: NDArray[Any] | None) -> NDArray[np.int64] | None:
    """Return labels as class ids [rows]; None when they are not whole numbers of at least 0, one a row."""
    if labels is None or labels.dtype.kind not in "biuf" or labels.size != len(labels):
        return None
    flat = labels.reshape(-1)
    if flat.dtype.kind == "f" and not (np.isfinite(flat).all() and (flat == np.trunc(flat)).all()):
        return None
    return None if flat.min(initial=0) < 0 else flat.astype(np.int64)
