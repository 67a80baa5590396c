"""A loaded model that takes and returns its tensors in the order of the package's signature."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from headrace.contracts import ModelPackage, Tensors
from headrace.contracts.tensors.datatypes import dtype_of
from headrace.runtimes.local.failures import passing_failure
from headrace.runtimes.local.ports import Feed, widens


class PositionalModel(ABC):
    """The common part of such models: checked inputs, named outputs, transient errors, refusal after `close`."""

    def __init__(self, package: ModelPackage) -> None:
        """package: whose signature says what goes in and comes out."""
        signature = package.manifest.file_signature
        self._feed: Final = Feed(signature)
        self._outputs: Final = [(spec.name, dtype_of(spec.datatype)) for spec in signature.outputs]
        self._closed = False

    def infer(self, inputs: Tensors) -> Tensors:
        """Run one batch."""
        if self._closed:
            raise RuntimeError("the model was closed")
        arrays = self._feed(inputs)
        try:
            values = self._run(arrays)
        except Exception as exc:
            if (passing := passing_failure(exc)) is not None:
                raise passing from exc
            raise
        return {
            name: value.astype(dtype) if value.dtype != dtype and widens(value.dtype, dtype) else value
            for (name, dtype), value in zip(self._outputs, values, strict=True)
        }

    def close(self) -> None:
        """Free the model."""
        if not self._closed:
            self._closed = True
            self._free()

    @abstractmethod
    def _run(self, arrays: Sequence[NDArray[Any]]) -> Sequence[NDArray[np.generic]]:
        """Run contiguous arrays; the arrays that come back belong to the caller alone."""

    @abstractmethod
    def _free(self) -> None:
        """Let go of everything that holds memory."""
