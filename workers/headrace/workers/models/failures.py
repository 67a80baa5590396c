"""Errors of failed runs, as clients see them: shapes, the failing node, the library's own reason, and a remedy.

They hold nothing of an exception whose form is unknown: it may quote another caller's data, a path or a password.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, Final

from numpy.typing import NDArray

from headrace.contracts import (
    HeadraceError,
    InferenceFailed,
    InputRefused,
    ModelOutOfMemory,
    OutputMismatch,
    RuntimeTrouble,
    Tensors,
    TensorSpec,
)
from headrace.contracts.tensors.datatypes import datatype_of
from headrace.runtimes.base import OutOfMemory, TransientFailure
from headrace.runtimes.local.failures import device_trouble, refusal_reason
from headrace.runtimes.remote.base import BadAnswer, BatchTooLarge, Refused, ServerFailed

#: What a log line, a row of a table and a terminal bear.
LONGEST: Final = 300

#: Shapes are left out, rather than cut to less than this.
_SHORTEST_SHAPES: Final = 24

_TAKES: Final = "send other shapes or values: `headrace models show MODEL` prints what it takes"
_SMALLER: Final = "send fewer rows or smaller inputs in a request, or run the worker where there is more memory"
_FEWER: Final = "send fewer rows or smaller inputs in a request"
_PACKAGE: Final = "add the file anew by `headrace models add`, which tries it out, or with --alone"
_LATER: Final = "submit it again later; the worker's log has the cause under the request id"
_SERVER_LOG: Final = "the server's log may have the cause"
_LOG: Final = "the worker's log has the cause under the request id"


class BrokenContract(Exception):
    """A model returned something else than its package says; the text says what, for a caller to read."""


def cause_of(exc: Exception, inputs: Tensors, specs: Iterable[TensorSpec] = ()) -> HeadraceError:
    """Return the error that a request gets when its run, alone, failed for good.

    inputs: those of the request. specs: of the model's inputs, for the names of their dimensions.
    """
    if isinstance(exc, HeadraceError):
        return OutputMismatch(exc.message) if isinstance(exc, BadAnswer) else exc
    if isinstance(exc, MemoryError | TransientFailure):
        return given_up(exc, 1, inputs, specs)
    given = _described(inputs, specs)
    if isinstance(exc, BrokenContract):
        return OutputMismatch(_line(f"the model broke its package: {exc}", given, _PACKAGE))
    if trouble := device_trouble(exc):
        return RuntimeTrouble(_line(f"the device had trouble that may pass ({trouble})", given, _LATER))
    return _refused(exc, inputs, given)


def _refused(exc: Exception, inputs: Tensors, given: str) -> HeadraceError:
    # What a server says of a batch that held this request alone is for its client to read.
    if isinstance(exc, ServerFailed):
        return InferenceFailed(_line(f"the model server failed on this input: {exc}", given, _SERVER_LOG))
    if isinstance(exc, Refused):
        return InputRefused(_line(f"the model server refuses this input: {exc}", given, _TAKES))
    if isinstance(exc, BatchTooLarge):
        return InputRefused(_line(f"the model server takes no request of this size: {exc}", given, _FEWER))
    if isinstance(exc, UnicodeDecodeError) and any(array.dtype.kind == "O" for array in inputs.values()):
        return InputRefused(_line("the model's strings are UTF-8, but an input holds other bytes", given, "send text"))
    reason = refusal_reason(exc)
    if reason is None:
        return InferenceFailed(_line("the model's runtime failed on this request", given, _LOG))
    said = ": ".join(filter(None, reason)) or "its runtime gives no reason"
    return InputRefused(_line(f"the model can't run this input: {said}", given, _TAKES))


def given_up(exc: Exception, tries: int, inputs: Tensors, specs: Iterable[TensorSpec] = ()) -> HeadraceError:
    """Return the error of a request that failed each time it was tried, for a reason that should have passed.

    exc: the last failure. tries: how many runs failed. inputs, specs: as for `cause_of`.
    """
    given = _described(inputs, specs)
    if isinstance(exc, MemoryError | OutOfMemory):
        return ModelOutOfMemory(_line("the request needs more memory than there is, even alone", given, _SMALLER))
    trouble = device_trouble(exc)
    times = "once" if tries == 1 else f"{tries} times"
    cause = f"the model's runtime failed {times} for a reason that should have passed"
    return RuntimeTrouble(_line(f"{cause} ({trouble})" if trouble else cause, given, _LATER))


def _line(cause: str, given: str, remedy: str) -> str:
    """Put the parts of a message together, with as much of the inputs as a line of LONGEST characters holds."""
    cause = _cut(cause, LONGEST - len(remedy) - 2)
    room = LONGEST - len(cause) - len(remedy) - len(" (inputs: ); ")
    shapes = f" (inputs: {_cut(given, room)})" if given and room >= min(_SHORTEST_SHAPES, len(given)) else ""
    return f"{cause}{shapes}; {remedy}"


def _cut(text: str, room: int) -> str:
    return text if len(text) <= room else f"{text[: room - 1]}…"


def _described(inputs: Mapping[str, NDArray[Any]], specs: Iterable[TensorSpec]) -> str:
    names = {spec.name: _dimension_names(spec) for spec in specs}
    return ", ".join(_tensor(name, array, names.get(name, ())) for name, array in inputs.items())


def _tensor(name: str, array: NDArray[Any], dimensions: tuple[str, ...]) -> str:
    labels = dimensions if len(dimensions) == array.ndim else ("",) * array.ndim
    sizes = [f"{label}={size}" if label else str(size) for label, size in zip(labels, array.shape, strict=True)]
    return f"{name} {datatype_of(array.dtype)} [{', '.join(sizes)}]"


def _dimension_names(spec: TensorSpec) -> tuple[str, ...]:
    names = list(spec.symbols or ("",) * len(spec.shape))
    if spec.row_axis is not None:
        names.insert(spec.row_axis, "rows")
    return tuple(names)
