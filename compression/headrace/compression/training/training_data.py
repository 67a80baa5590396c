"""The data of a training: rows, labels, a teacher's soft targets, and the loss. Imports torch."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, TypeAlias

import numpy as np
from numpy.typing import NDArray
from torch import Tensor, nn

from headrace.compression.data.dataset import Dataset
from headrace.compression.data.probabilities import are_probabilities
from headrace.compression.errors import DataError
from headrace.compression.networks.network import Network, as_array, as_tensor
from headrace.compression.steps import StepContext
from headrace.compression.training.loss import NO_CLASS, Objective, choose, find_taught, logits_of
from headrace.compression.training.options import Training
from headrace.contracts import ModelPackage, Tensors
from headrace.contracts.files import atomic_file
from headrace.runtimes.loading import load_model

Teacher: TypeAlias = Network | ModelPackage

#: Rows that a teacher labels at once.
_TEACHER_ROWS: Final = 64


@dataclass(frozen=True)
class TrainingData:
    """Rows to train with. labels: classes or values, one entry a row; targets: the teacher's outputs; None if none."""

    rows: Dataset
    labels: NDArray[Any] | None
    targets: NDArray[Any] | None
    objective: Objective
    labelled_rows: int

    def fingerprint(self) -> str:
        """Return a checksum of rows, labels, targets and objective."""
        digest = hashlib.sha256(repr(self.objective).encode())
        for array in (*self.rows.inputs.values(), self.labels, self.targets):
            digest.update(_content(array))
        return digest.hexdigest()

    def batch(self, numbers: NDArray[np.intp]) -> tuple[Tensors, Tensor | None, Tensor | None]:
        """Return the inputs, labels and targets of some rows."""
        return (
            {name: array[numbers] for name, array in self.rows.inputs.items()},
            None if self.labels is None else as_tensor(self.labels[numbers]),
            None if self.targets is None else as_tensor(self.targets[numbers]),
        )


def prepare(
    network: Network,
    context: StepContext,
    training: Training,
    given: tuple[Teacher | None, Dataset | None, Path],
) -> TrainingData:
    """Gather the data of a training. given: the teacher, more rows for it to label, the folder to keep its answers in.

    Raises DataError when there is nothing to learn from, or nothing that the network can learn.
    """
    teacher, unlabelled, folder = given
    if unlabelled is not None and teacher is None:
        raise DataError("rows without labels teach nothing without a teacher; name one, or leave the rows out")
    rows = _joined(context.data.train, unlabelled)
    network.arguments(rows.inputs)
    labels = read_labels(rows.labels, network.labels)
    known = np.zeros(len(rows), bool) if labels is None else _is_known(labels)
    if not known.any():
        labels = None
        if teacher is None:
            raise DataError("there are neither labels nor a teacher to learn from; name the column of the labels")
    if teacher is None:
        assert labels is not None
        rows, labels, known = rows.take(np.flatnonzero(known)), labels[known], known[known]
    taught = None if teacher is None else _ask(teacher, network.example, context)
    output, kind = choose(network, labels, taught)
    example = network.infer(network.example)[output]
    objective = Objective(
        output=output,
        kind=kind,
        probabilities=kind == "classes" and are_probabilities(example),
        temperature=training.temperature,
        alpha=training.alpha,
    )
    targets = None
    if teacher is not None and taught is not None:
        key = _counterpart(output, example.shape[1:], taught)
        targets = _targets(teacher, rows, (key, kind), context, folder)
    return TrainingData(rows, labels, targets, objective, int(known.sum()))


def _counterpart(output: str, shape: tuple[int, ...], taught: Tensors) -> str:
    """Name the teacher's output that a student's is to be like. Raises DataError when there is none."""
    key = find_taught(output, shape, taught)
    if key is None:
        raise DataError(
            f"the teacher gives nothing like the student's output {output!r} of shape {list(shape)} (without rows): "
            f"{', '.join(f'{name} {list(array.shape[1:])}' for name, array in taught.items())}"
        )
    return key


def _joined(train: Dataset, unlabelled: Dataset | None) -> Dataset:
    if unlabelled is None:
        return train
    if set(train.inputs) - set(unlabelled.inputs):
        raise DataError(f"the unlabelled rows lack {', '.join(sorted(set(train.inputs) - set(unlabelled.inputs)))}")
    inputs = {name: np.concatenate([array, unlabelled.inputs[name]]) for name, array in train.inputs.items()}
    if train.labels is None:
        return Dataset(inputs)
    none: Any = {"f": np.nan, "i": NO_CLASS, "u": NO_CLASS, "b": NO_CLASS}.get(train.labels.dtype.kind, "")
    labels = train.labels.astype(np.int64) if train.labels.dtype.kind in "ub" else train.labels
    blank = np.full((len(unlabelled), *labels.shape[1:]), none, dtype=labels.dtype)
    return Dataset(inputs, np.concatenate([labels, blank]))


def read_labels(labels: NDArray[Any] | None, names: tuple[str, ...]) -> NDArray[Any] | None:
    """Return labels as INT64 classes, -1 for none, or as FP32 values, NaN for none.

    names: of the classes, which labels of text are looked up in; "" is none. Raises DataError for one that isn't there.
    """
    if labels is None:
        return None
    if labels.dtype.kind in "iub":
        return np.maximum(labels.astype(np.int64), NO_CLASS)
    if labels.dtype.kind == "f":
        return labels.astype(np.float32)
    numbers = {name: number for number, name in enumerate(names)} | {"": NO_CLASS}
    words = [word.decode() if isinstance(word, bytes) else str(word) for word in labels.reshape(-1).tolist()]
    unknown = next((word for word in words if word not in numbers), None)
    if unknown is not None:
        raise DataError(f"label {unknown!r} is none of the model's labels: {', '.join(names) or 'it has none'}")
    return np.array([numbers[word] for word in words], np.int64).reshape(labels.shape)


def _is_known(labels: NDArray[Any]) -> NDArray[np.bool_]:
    """Return which rows have at least one label."""
    known = labels != NO_CLASS if labels.dtype.kind == "i" else ~np.isnan(labels)
    return np.asarray(known.reshape(len(labels), -1).any(axis=1))


def _ask(teacher: Teacher, inputs: Mapping[str, NDArray[Any]], context: StepContext) -> Tensors:
    """Return all outputs of a teacher for some rows."""
    if isinstance(teacher, Network):
        return teacher.infer(inputs)
    wanted = [spec.name for spec in teacher.manifest.inputs]
    missing = [name for name in wanted if name not in inputs]
    if missing:
        raise DataError(
            f"the teacher {teacher.name!r} needs the input {missing[0]!r}; the rows have {', '.join(inputs)}"
        )
    rows = len(next(iter(inputs.values())))
    model = load_model(teacher, "cpu", context.threads)
    try:
        parts = []
        for start in range(0, rows, _TEACHER_ROWS):
            parts.append(model.infer({name: inputs[name][start : start + _TEACHER_ROWS] for name in wanted}))
            context.progress(min(start + _TEACHER_ROWS, rows), rows, "asking the teacher")
    finally:
        model.close()
    return {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}


def _targets(
    teacher: Teacher, rows: Dataset, wanted: tuple[str, str], context: StepContext, folder: Path
) -> NDArray[np.float32]:
    """Label all rows by the teacher, once: its answers are kept under a checksum of teacher and rows."""
    output, kind = wanted
    digest = hashlib.sha256(_identity(teacher).encode())
    for array in rows.inputs.values():
        digest.update(_content(array))
    kept = folder / f"teacher-{output}-{digest.hexdigest()[:16]}.npy"
    if kept.exists():
        answers: NDArray[Any] = np.load(kept, allow_pickle=False)
    else:
        answers = _ask(teacher, rows.inputs, context)[output]
        with atomic_file(kept) as file:
            np.save(file, answers, allow_pickle=False)
    if kind == "classes":
        # One batch alone may look like probabilities; all rows hardly.
        return as_array(logits_of(as_tensor(answers), probabilities=are_probabilities(answers)))
    return answers.astype(np.float32)


def _identity(teacher: Teacher) -> str:
    return weights_digest(teacher.module) if isinstance(teacher, Network) else teacher.manifest.sha256


def weights_digest(module: nn.Module) -> str:
    """Return a checksum of a module's weights and structure."""
    digest = hashlib.sha256(repr(module).encode())
    for name, value in module.state_dict().items():
        digest.update(name.encode())
        if isinstance(value, Tensor):
            digest.update(_content(as_array(value)))
    return digest.hexdigest()


def _content(array: NDArray[Any] | None) -> bytes:
    if array is None:
        return b"none"
    head = f"{array.dtype.name}{array.shape}".encode()
    return head + hashlib.sha256(np.ascontiguousarray(array).tobytes()).digest()
