"""Sizes of dimensions that a model file names or leaves open, and the sums and products that name them."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Mapping
from typing import Final

from headrace.lifecycle.packages.declared import DeclaredTensor

#: Names that exporters write for a dimension of which they know nothing: two of one name need not be equal.
_NAMELESS: Final = re.compile(r"|\?|-1|none|unk|unknown|dynamic|unk__\d+|dim|DynamicDimension\.\d+", re.IGNORECASE)

#: One term of a dimension's expression, such as `2*length`.
_TERM: Final = re.compile(r"(?:(\d+)\s*\*\s*)?([A-Za-z_][\w.:/]*)|(\d+)")

Dims = tuple[int | str, ...]


def is_nameless(symbol: str) -> bool:
    """Return whether a dimension's name is none that a person gave: such names don't tell what is equal."""
    return _NAMELESS.fullmatch(symbol) is not None or "[" in symbol


def named_dims(tensor: DeclaredTensor, rank: int = 2) -> Dims:
    """Return a tensor's dimensions; each that varies without a name has one of its own, such as `x[1]`.

    rank: of a tensor whose file doesn't tell. A sequence has its length first.
    """
    declared = (None,) * rank if tensor.dims is None else tensor.dims
    if tensor.sequence:
        declared = (None, *declared)
    dims: list[int | str] = []
    for index, size in enumerate(declared):
        known = (isinstance(size, int) and size > 0) or (isinstance(size, str) and not is_nameless(size))
        dims.append(size if known and size is not None else f"{tensor.name}[{index}]")
    return tuple(dims)


def terms_of(dim: str) -> list[tuple[int, str]]:
    """Return the terms of a sum such as `past + 2*length + 1`, each a factor and a symbol ("" for a plain number).

    A name that is no such sum is a symbol by itself.
    """
    terms = []
    for part in dim.split("+"):
        match = _TERM.fullmatch(part.strip())
        if match is None:
            return [(1, dim)]
        factor, symbol, number = match.groups()
        terms.append((int(number), "") if number else (int(factor or 1), symbol))
    return terms


def symbols_of(dims: Iterable[Dims]) -> list[str]:
    """Return all symbols, those within sums too, in the order in which they occur."""
    found = (symbol for each in dims for dim in each if isinstance(dim, str) for _, symbol in terms_of(dim))
    return list(dict.fromkeys(symbol for symbol in found if symbol))


def size_of(dim: int | str, sizes: Mapping[str, int]) -> int | None:
    """Return the size of a dimension; None when a symbol of it has no size."""
    if isinstance(dim, int):
        return dim
    terms = terms_of(dim)
    if any(symbol and symbol not in sizes for _, symbol in terms):
        return None
    return sum(factor * (sizes[symbol] if symbol else 1) for factor, symbol in terms)


def elements(shape: Iterable[int]) -> int:
    """Return the number of elements of a shape."""
    return math.prod(shape)
