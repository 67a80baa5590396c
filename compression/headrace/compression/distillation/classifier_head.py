"""The outputs of a classifier (label, probabilities, logits), detected and added to another network. Imports torch."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final, Literal, TypeAlias

import numpy as np
from numpy.typing import NDArray
from torch import Tensor, nn

from headrace.compression.data.probabilities import are_probabilities
from headrace.compression.errors import NotApplicable
from headrace.compression.networks.architectures import ImageTask
from headrace.compression.networks.network import Network, as_tensor

Kind: TypeAlias = Literal["label", "probabilities", "log-probabilities", "logits"]

_INSTEAD: Final = "a family of image classifiers can't take its place"


@dataclass(frozen=True)
class ClassifierSpec:
    """The task of an image classifier, and the kinds and datatypes of its outputs, in order."""

    task: ImageTask
    kinds: tuple[Kind, ...]
    datatypes: tuple[np.dtype[Any], ...]


class WithHead(nn.Module):
    """A network that gives logits [rows, classes], with the outputs of another classifier."""

    def __init__(self, network: nn.Module, classifier: ClassifierSpec) -> None:
        """classifier: whose outputs it gives."""
        super().__init__()
        self.network = network
        self._kinds = classifier.kinds
        self._types = tuple(as_tensor(np.zeros(1, each)).dtype for each in classifier.datatypes)

    def forward(self, image: Tensor) -> tuple[Tensor, ...]:
        """Map FP32 [rows, channels, height, width] to the outputs."""
        logits = self.network(image)
        outputs = []
        for kind, datatype in zip(self._kinds, self._types, strict=True):
            if kind == "label":
                found = logits.argmax(dim=1)
            elif kind == "logits":
                found = logits
            else:
                found = logits.softmax(dim=1) if kind == "probabilities" else logits.log_softmax(dim=1)
            outputs.append(found.to(datatype))
        return tuple(outputs)


def classifier_spec(network: Network, labels: NDArray[Any] | None = None) -> ClassifierSpec:
    """Return the task and the outputs of an image classifier.

    labels: of rows, if there are any: whole numbers make scores of outputs that could be anything.
    Raises NotApplicable when it is none.
    """
    images = list(network.example.values())
    if len(images) != 1 or images[0].dtype != np.float32 or images[0].ndim != 4:
        raise NotApplicable(
            f"network {network.name!r} does not take one FP32 image [channels, height, width], so {_INSTEAD}"
        )
    outputs = network.infer(network.example)
    scores = {name: array for name, array in outputs.items() if array.dtype.kind == "f" and array.ndim == 2}
    classes = {array.shape[1] for array in scores.values()}
    if len(classes) != 1 or min(classes) < 2:
        raise NotApplicable(f"network {network.name!r} gives no scores of classes [rows, classes], so {_INSTEAD}")
    kinds = tuple(_kind_of(network, name, array, scores) for name, array in outputs.items())
    (count,) = classes
    certain = any(kind != "logits" for kind in kinds) or len(network.labels) == count
    if not certain and not (labels is not None and labels.dtype.kind in "iu" and labels.max(initial=0) < count):
        raise NotApplicable(
            f"it is unknown whether network {network.name!r} returns scores of classes; give its class names, or rows "
            "with labels"
        )
    channels, height, width = images[0].shape[1:]
    return ClassifierSpec(
        ImageTask(channels, height, width, count), kinds, tuple(array.dtype for array in outputs.values())
    )


def _kind_of(network: Network, name: str, array: NDArray[Any], scores: dict[str, NDArray[Any]]) -> Kind:
    if name in scores:
        if are_probabilities(array):
            return "probabilities"
        if array.max() <= 0 and are_probabilities(np.exp(array)):
            return "log-probabilities"
        return "logits"
    if array.dtype.kind in "iu" and any(np.array_equal(array, each.argmax(axis=1)) for each in scores.values()):
        return "label"
    raise NotApplicable(
        f"output {name!r} of network {network.name!r} is neither the scores of classes nor their label, so {_INSTEAD}"
    )
