"""The choice of the metric that fits a model's outputs and its data."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from headrace.compression.errors import DataError
from headrace.compression.evaluation.metrics import Family, Kind, Metric, Unit, class_ids
from headrace.contracts import Signature, TensorSpec
from headrace.contracts.errors import quoted
from headrace.contracts.tensors.datatypes import FLOATS

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
