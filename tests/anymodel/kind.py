"""A kind of model file, in ONNX's text form, and what callers send to it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, TypeAlias

import numpy as np
from numpy.random import Generator
from onnx import parser
from tests.anymodel.bare import Bare

Send: TypeAlias = Callable[[Generator, int], dict[str, np.ndarray]]

HEAD = '<ir_version: 10, opset_import: ["" : 20, "ai.onnx.ml" : 3, "com.microsoft" : 1]>\n'


@dataclass(frozen=True, eq=False)
class Kind:
    """One kind of model.

    send: what a caller sends, given a random generator and a number of rows. together: whether callers must share runs
    (True), must not (False), or either is right (None). rows: numbers of rows that callers send. options: of
    `add_model`.
    same_always: bare ONNX Runtime gives the same answer twice.
    """

    name: str
    text: str
    send: Send
    together: bool | None
    rows: tuple[int, ...] = (1, 2, 3)
    options: dict[str, Any] = field(default_factory=dict)
    same_always: bool = True
    ir_version: int = 10

    def model(self) -> bytes:
        made = parser.parse_model(HEAD + self.text)
        made.ir_version = self.ir_version
        return bytes(made.SerializeToString())

    def bare(self) -> Bare:
        """Load the model in bare ONNX Runtime, which is always given what the package sets."""
        return Bare(self.model(), self.options.get("constants", {}))

    def __str__(self) -> str:
        return self.name


def floats(rng: Generator, *shape: int) -> np.ndarray:
    return rng.normal(size=shape).astype(np.float32)


def ids(rng: Generator, below: int, *shape: int) -> np.ndarray:
    return rng.integers(0, below, shape)


def length(rng: Generator, low: int = 1, high: int = 5) -> int:
    return int(rng.integers(low, high + 1))


def table(width: int) -> Send:
    return lambda rng, n: {"x": floats(rng, n, width)}


def image(*shape: int) -> Send:
    return lambda rng, n: {"x": floats(rng, n, *shape)}


def sequences(width: int) -> Send:
    return lambda rng, n: {"x": floats(rng, n, length(rng), width)}


def words(rng: Generator, *shape: int) -> np.ndarray:
    known = np.array([b"g", b"b c", b"the cat sat", b"", "grün".encode()], object)
    return known[rng.integers(0, len(known), shape)]
