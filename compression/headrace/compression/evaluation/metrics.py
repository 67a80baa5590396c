"""Metrics of a model's outputs, and the choice of the one that fits a model and its data.

    of classes       accuracy, balanced-accuracy, f1      need labels that are class ids
    of scores        auc                                  the same
    of numbers       rmse, mae, r2                        need labels of the shape of the output
    of faithfulness  agreement, cosine                    need the outputs of the original model, no labels

An output is read as one of five kinds: `ids` (integers, one a row: the class), `text` (BYTES, one a row: the name of
the class), `scores` (floats, n a row: the class is the highest), `number` (a float, one a row), `tensor` (any other
floats). Anything else no metric reads.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final, Literal, TypeAlias

import numpy as np
from numpy.typing import NDArray

from headrace.compression.data.probabilities import INT8_ROUNDING, are_probabilities, softmax
from headrace.compression.errors import DataError
from headrace.compression.evaluation import weighted_statistics
from headrace.compression.evaluation.bootstrap import Statistic
from headrace.contracts import Signature, Tensors, TensorSpec
from headrace.contracts.errors import quoted
from headrace.contracts.tensors.datatypes import FLOATS

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


def kind_of(spec: TensorSpec, names: Sequence[str]) -> Kind:
    """Return how an output is read. names: the package's labels."""
    one = all(size == 1 for size in spec.shape)
    if spec.datatype == "BYTES":
        return "text" if one and names else "other"
    if spec.datatype not in FLOATS:
        return "ids" if one else "other"
    if one:
        return "number"
    known = spec.shape[0] if len(spec.shape) == 1 else 0
    return "scores" if known > 1 or (known == -1 and names) else "tensor"


#: Name → family, whether higher is better, and the unit of a drop; in the order in which they are preferred.
METRICS: Final[dict[str, tuple[Family, bool, Unit]]] = {
    "accuracy": ("classes", True, "points"),
    "balanced-accuracy": ("classes", True, "points"),
    "f1": ("classes", True, "points"),
    "auc": ("auc", True, "points"),
    "rmse": ("numbers", False, "relative"),
    "mae": ("numbers", False, "relative"),
    "r2": ("numbers", True, "points"),
    "agreement": ("agreement", True, "points"),
    "cosine": ("cosine", True, "points"),
}


def metric_for(
    name: str | None,
    signature: Signature,
    labels: NDArray[Any] | None,
    *,
    names: Sequence[str] = (),
    output: str | None = None,
) -> Metric:
    """Choose the metric and the output it reads.

    name: of the metric; None for the one that suits best: accuracy for classes, auc for a score of labels 0 and 1,
    rmse for other numbers; without labels agreement when the classes are known, else cosine. labels: of the data.
    names: the package's labels. output: only this one is considered.
    Raises DataError for an unknown metric or output, and, with a list of those that fit, for one that doesn't fit.
    """
    considered = [spec for spec in signature.outputs if output in {None, spec.name}]
    if not considered:
        raise DataError(
            f"the model has no output {quoted(output)}; it has {', '.join(spec.name for spec in signature.outputs)}"
        )
    wanted = name if name is None else name.lower().replace("_", "-")
    if wanted is not None and wanted not in METRICS:
        raise DataError(f"there is no metric {quoted(name)}; choose one of {', '.join(METRICS)}")
    fitting = [
        _metric(metric, spec, signature, names)
        for metric, (family, *_) in METRICS.items()
        for spec in sorted(considered, key=lambda spec: _preference(spec, names))
        if _fits(family, spec, labels, names)
    ]
    for metric in fitting:
        if wanted == metric.name or (wanted is None and not _needs_asking(metric, labels)):
            _check_classes(metric, signature, labels)
            return metric
    raise DataError(_refusal(wanted, considered, labels, fitting))


def _needs_asking(metric: Metric, labels: NDArray[Any] | None) -> bool:
    """Whether a metric fits, but says little: classes of scores that may as well be an embedding."""
    return labels is None and metric.name == "agreement" and metric.kind == "scores" and not metric.names


def _check_classes(metric: Metric, signature: Signature, labels: NDArray[Any] | None) -> None:
    """Refuse labels that are higher than any class the scores have. Raises DataError."""
    ids = class_ids(labels)
    if metric.kind != "scores" or metric.family not in {"classes", "auc"} or ids is None:
        return
    (count,) = next(spec.shape for spec in signature.outputs if spec.name == metric.output)
    if 0 < count <= ids.max(initial=0):
        row = int(ids.argmax())
        raise DataError(
            f"label {ids[row]} (row {row}) is no class of output {metric.output!r}, whose {count} classes are counted "
            "from 0; give class ids, choose another --output, or --metric cosine if these are no classes"
        )


def _preference(spec: TensorSpec, names: Sequence[str]) -> int:
    kind = kind_of(spec, names)
    if kind == "ids":
        # Labels such as "3" to "8" may be what the ids are, or what they count: the scores leave no doubt.
        numerals = [str(index) for index in range(len(names))]
        return 3 if all(name.lstrip("-").isdecimal() for name in names) and list(names) != numerals else 0
    if kind == "scores":
        return 1 if spec.shape[0] == len(names) else 2
    return {"text": 0, "number": 4, "tensor": 5}.get(kind, 6)


def _fits(family: Family, spec: TensorSpec, labels: NDArray[Any] | None, names: Sequence[str]) -> bool:
    kind = kind_of(spec, names)
    ids = class_ids(labels)
    match family:
        case "classes":
            return kind in {"ids", "text", "scores"} and ids is not None
        case "auc":
            is_binary = ids is not None and set(np.unique(ids).tolist()) == {0, 1}
            return (kind == "scores" and ids is not None) or (kind == "number" and is_binary)
        case "numbers":
            return kind in {"number", "scores", "tensor"} and _has_shape(labels, spec)
        case "agreement":
            return kind in {"ids", "text", "scores"}
        case "cosine":
            return kind in {"scores", "tensor"}


def _has_shape(labels: NDArray[Any] | None, spec: TensorSpec) -> bool:
    """Whether labels are numbers, as many a row as the output gives."""
    if labels is None or labels.dtype.kind not in "biuf":
        return False
    shape = labels.shape[1:]
    if all(size == 1 for size in spec.shape):
        return math.prod(shape) == 1
    return len(shape) == len(spec.shape) and all(w in (-1, h) for w, h in zip(spec.shape, shape, strict=True))


def _metric(name: str, spec: TensorSpec, signature: Signature, names: Sequence[str]) -> Metric:
    family, higher_is_better, unit = METRICS[name]
    kind = kind_of(spec, names)
    beside = [
        other.name
        for other in sorted(signature.outputs, key=lambda other: _preference(other, names))
        if kind_of(other, names) == "scores"
    ]
    return Metric(
        name=name,
        output=spec.name,
        kind=kind,
        family=family,
        higher_is_better=higher_is_better,
        unit=unit,
        scores=spec.name if kind == "scores" else next(iter(beside), ""),
        names=tuple(names),
    )


def _refusal(
    wanted: str | None, considered: Sequence[TensorSpec], labels: NDArray[Any] | None, fitting: Sequence[Metric]
) -> str:
    outputs = "; ".join(spec.describe() for spec in considered)
    given = "no labels" if labels is None else f"labels of {labels.dtype}, {list(labels.shape[1:]) or 'one'} a row"
    if not fitting:
        remedy = "name the column of labels with --label" if labels is None else "give labels of the output's shape"
        return f"no metric fits the outputs {outputs} with {given}; {remedy}"
    fits = ", ".join(dict.fromkeys(metric.name for metric in fitting))
    return f"metric {wanted!r} does not fit the outputs {outputs} with {given}; these fit: {fits}"
