"""Tensors of servers as raw bytes (`contracts.tensors.raw`), with errors that blame the server's answer."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from numpy.typing import NDArray

from headrace.contracts.errors import quoted
from headrace.contracts.tensors import raw
from headrace.contracts.tensors.raw import Buffer, MalformedTensor, pack
from headrace.runtimes.remote.base import BadAnswer

__all__ = ["Buffer", "answer_blamed", "element_count", "pack", "unpack"]


@contextmanager
def answer_blamed(name: str) -> Iterator[None]:
    """Turn what is wrong with a tensor into BadAnswer."""
    try:
        yield
    except MalformedTensor as exc:
        raise BadAnswer(f"the server's output {quoted(name)} {exc}") from None


def unpack(data: Buffer, datatype: str, shape: Sequence[int], name: str) -> NDArray[Any]:
    """Return the array of an answer's bytes, a view of them where that is possible. Raises BadAnswer."""
    with answer_blamed(name):
        return raw.unpack(data, datatype, shape)


def element_count(shape: Sequence[int], name: str) -> int:
    """Return how many elements a shape in an answer stands for. Raises BadAnswer for an impossible one."""
    with answer_blamed(name):
        return raw.element_count(shape)
