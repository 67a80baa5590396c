"""What callers send: requests of different rows, lengths and parameters, with ordinary and extreme values."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

#: How a caller's values may be. Real traffic holds all of these, also in one batch.
TEMPERS = ("ordinary", "ordinary", "large", "zeros", "twins", "unset", "tiny", "infinite", "mixed")


@dataclass(frozen=True)
class Input:
    """One input of a generated model.

    dims: numbers, or the names of sizes that a request chooses. below: integers are from 0 to one less.
    parameter: no rows by construction; callers choose it from few values, so that some agree.
    """

    name: str
    dtype: str
    dims: tuple[int | str, ...]
    below: int = 4
    parameter: bool = False


@dataclass(frozen=True)
class Case:
    """A generated model and what is known of it.

    rows: the name of the row dimension, or the number of a fixed batch. independent: whether a row's answer is by
    construction the same in any company; None when either way of serving is right. steps: how the graph was made.
    lengths: the least and the most that callers choose for each other size. finite: callers send no NaN or infinity.
    rows_at: what a user says of the inputs whose rows can't be told from another nameless dimension.
    """

    name: str
    model: bytes
    inputs: tuple[Input, ...]
    rows: int | str
    independent: bool | None
    steps: tuple[str, ...] = ()
    lengths: dict[str, tuple[int, int]] = field(default_factory=dict)
    finite: bool = False
    rows_at: dict[str, int] = field(default_factory=dict)


def request(case: Case, rng: np.random.Generator, rows: int | None = None, temper: str = "") -> dict[str, np.ndarray]:
    """Return what one caller sends."""
    sizes: dict[str, int] = {case.rows: rows or int(rng.integers(1, 6))} if isinstance(case.rows, str) else {}
    for symbol, (low, high) in case.lengths.items():
        sizes[symbol] = int(rng.integers(low, high + 1))
    temper = temper or str(rng.choice(TEMPERS))
    if case.finite and temper in {"unset", "infinite"}:
        temper = "ordinary"
    return {each.name: _values(each, sizes, rng, temper) for each in case.inputs}


def requests(case: Case, rng: np.random.Generator, callers: int) -> list[dict[str, np.ndarray]]:
    """Return what several callers send at once; some send what another sent."""
    sent = [request(case, rng) for _ in range(callers)]
    if rng.random() < 0.3:
        sent.append({name: array.copy() for name, array in sent[0].items()})
    return sent


def _values(given: Input, sizes: dict[str, int], rng: np.random.Generator, temper: str) -> np.ndarray:
    shape = tuple(sizes[dim] if isinstance(dim, str) else dim for dim in given.dims)
    kind = np.dtype(given.dtype)
    if given.parameter:
        return _parameter(given, shape, rng)
    if kind.kind == "O":
        words = [b"", b"a", b"b c", b"the cat sat", "größer".encode(), b"a"]
        return np.array([words[i] for i in rng.integers(0, len(words), int(np.prod(shape)))], object).reshape(shape)
    if kind.kind == "b":
        return rng.random(shape) < {"zeros": 0.0, "large": 1.0}.get(temper, 0.5)
    if kind.kind in "iu":
        return np.zeros(shape, kind) if temper == "zeros" else rng.integers(0, given.below, shape).astype(kind)
    return _floats(shape, rng, temper).astype(kind)


def _parameter(given: Input, shape: tuple[int, ...], rng: np.random.Generator) -> np.ndarray:
    kind = np.dtype(given.dtype)
    if kind.kind == "b":
        return np.full(shape, rng.random() < 0.5, kind)
    return np.full(shape, rng.integers(0, 3), kind)


def _floats(shape: tuple[int, ...], rng: np.random.Generator, temper: str) -> np.ndarray:
    values = rng.normal(size=shape)
    if temper == "large":
        values *= 100
    elif temper == "zeros":
        values[...] = 0
    elif temper == "tiny":
        values *= 1e-4
    elif temper == "twins":
        # Few different values, so that rows of different callers are equal.
        values[...] = rng.integers(0, 2)
    elif temper == "unset" and values.size:
        values.reshape(-1)[rng.integers(0, values.size)] = np.nan
    elif temper == "infinite" and values.size:
        values.reshape(-1)[rng.integers(0, values.size)] = rng.choice([np.inf, -np.inf])
    elif temper == "mixed":
        values *= rng.choice([0, 1, 100, -100], size=shape)
    return values
