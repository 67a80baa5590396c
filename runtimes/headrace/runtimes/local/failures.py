"""Classification of runtimes' errors: which are transient, and which reasons a caller may read."""

from __future__ import annotations

import re
from typing import Final, NamedTuple

from headrace.contracts.formatting import first_line
from headrace.runtimes.base import OutOfMemory, TransientFailure

#: Runtimes raise the same few classes for everything; only the text tells what happened. ONNX Runtime's arenas ("Failed
#: to allocate memory"), torch ("can't allocate memory"), C++ (bad_alloc), CUDA and cuDNN/cuBLAS and OpenCL say that
#: there is not enough memory in these words.
_OUT_OF_MEMORY: Final = re.compile(
    r"failed to allocate|can't allocate memory|bad_alloc|out of memory|OUT_OF_MEMORY|MemoryAllocation|ALLOC_FAILED|"
    r"not enough memory|CL_OUT_OF_(?:HOST_MEMORY|RESOURCES)|CL_MEM_OBJECT_ALLOCATION_FAILURE",
    re.IGNORECASE,
)

#: What CUDA says when the device is gone or its context broken; another process, or this one restarted, may succeed.
_DEVICE_LOST: Final = re.compile(
    r"device[- ]lost|DEVICE_REMOVED|CUDA failure (?:46|100|101|700|709|710|719|999)\b|"
    r"cudaError(?:DevicesUnavailable|NoDevice|IllegalAddress|LaunchFailure|ECCUncorrectable|Unknown)|"
    r"uncorrectable ECC error|unspecified launch failure|an illegal memory access was encountered|"
    r"device is (?:busy|not ready|unavailable)",
    re.IGNORECASE,
)

#: How ONNX Runtime names the node that failed. Of nested ones (in the body of an If or a Loop) the innermost is last.
_ONNX_FAILED: Final = "Non-zero status code returned while running "
_ONNX_NODE: Final = re.compile(r"(\w+) node\. Name:'([^\n]*?)' Status Message: (.*)", re.DOTALL)

#: What ONNX Runtime says of inputs that don't fit the file.
_ONNX_INPUT: Final = re.compile(
    r"(Got invalid dimensions for input: .*?|Invalid rank for input: .*?|Unexpected input data type\. .*?)"
    r"(?: Please fix either.*)?$",
    re.DOTALL,
)

_OPENVINO: Final = "Exception from src/"
_OPENVINO_NODE: Final = re.compile(r"\[[A-Z]+\] (\w+) node with name '([^\n]*?)' (.*)", re.DOTALL)

_LITERT_NODE: Final = re.compile(r"(.*?)Node number (\d+) \((\w+)\) failed to (?:prepare|invoke)", re.DOTALL)

#: What torch and LiteRT say of shapes and indices, and our adapters of values.
_SENTENCES: Final = re.compile(
    r"The size of tensor a \(\d+\) must match the size of tensor b \(\d+\) at non-singleton dimension \d+|"
    r"mat1 and mat2 (?:shapes cannot be multiplied|must have the same dtype).*|"
    r"shape '[^']*' is invalid for input of size \d+|index(?: -?\d+)? (?:out of range in self|is out of bounds for .*)|"
    r"(?:Calculated padded input size per channel|Given groups=|Given normalized_shape=|Sizes of tensors must match|"
    r"stack expects each tensor|Expected size for first two dimensions|Expected (?:input at )?\*?args\[|"
    r"Expected \d+D|Cannot set tensor: ).*|"
    r"input '[^']{1,100}' holds (?:NaN|values outside).*"
)

#: Where in C++ something was noticed: a file and a line, then a function with or without its parameters.
_PLACE: Final = re.compile(
    r"(?:[A-Za-z]:)?[\w./\\+-]*\.(?:cc|cpp|cu|cuh|h|hpp):\d+:?\s+"
    r"(?:[\w:<>,*&~\s\[\]]+\((?:[^()]|\([^()]*\))*\)(?: const)?(?: \[with [^\]]*\])?\s+|[A-Z]\w*[a-z]\w*\s+(?=\S+\s))?"
)
_CONDITION: Final = re.compile(r"^.{1,300}? was false\.\s+(?=\S)", re.DOTALL)
_ONNX_CODE: Final = re.compile(r"\[ONNXRuntimeError\] : \d+ : \w+ : ")
#: What is left of places, C++ names and addresses inside a reason; and advice for those who wrote the library.
_NOISE: Final = re.compile(
    r"(?:[A-Za-z]:)?(?:[\w.+-]*[/\\])+[\w.+-]+(?::\d+:?)?|\b0x[0-9a-fA-F]{4,}\b|\b\w+(?:::\w+)+(?:\([^()]*\))?|"
    r"Run workload with environment variable.*| ; GPU=.*",
    re.DOTALL,
)

#: How much of an error's text is read, since patterns take long on long ones; and how much of it is told.
_READ: Final = 2000
_LONGEST_NAME: Final = 60
_LONGEST_REASON: Final = 140


class Reason(NamedTuple):
    """Why a model did not run, in the library's own words. node: operator and name of what failed, "" if unknown."""

    node: str
    text: str


def passing_failure(exc: Exception) -> TransientFailure | None:
    """Return the TransientFailure that an error of a runtime stands for; None if it will fail again."""
    text = str(exc)
    if isinstance(exc, MemoryError) or _OUT_OF_MEMORY.search(text):
        return OutOfMemory(first_line(exc))
    return TransientFailure(first_line(exc)) if _DEVICE_LOST.search(text) else None


def device_trouble(exc: Exception) -> str:
    """Return the words with which an error says that a device is lost; "" if it doesn't."""
    found = _DEVICE_LOST.search(str(exc))
    return found[0] if found else ""


def openvino_cause(exc: Exception) -> str:
    """Return the last line of an error of OpenVINO; those before it name places in its source."""
    lines = [line.strip() for line in str(exc).splitlines() if line.strip()]
    return lines[-1] if lines else type(exc).__name__


def refusal_reason(exc: Exception) -> Reason | None:
    """Return why a model refused its input; None unless the error has a form that is known to hold no secret.

    The reason is one line without paths, C++ signatures and addresses.
    """
    text = str(exc)
    text = text[max(text.rfind(_ONNX_FAILED), 0) :][:_READ]
    if text.startswith(_ONNX_FAILED) and (found := _ONNX_NODE.match(text.removeprefix(_ONNX_FAILED))):
        return Reason(_named(found[1], found[2]), _plain(found[3]))
    if text.startswith("[ONNXRuntimeError]") and (found := _ONNX_INPUT.search(text)):
        return Reason("", _plain(found[1]))
    if text.startswith(_OPENVINO):
        return _openvino_reason(text)
    if found := _LITERT_NODE.search(text):
        return Reason(f"{found[3]} node {found[2]}", _plain(found[1]))
    first = first_line(exc)
    return Reason("", _plain(first)) if _SENTENCES.fullmatch(first[:_READ]) else None


def _openvino_reason(text: str) -> Reason:
    found = _OPENVINO_NODE.search(text)
    lines = [line for line in (found[3] if found else text).splitlines() if line.strip()]
    return Reason(_named(found[1], found[2]) if found else "", _plain(lines[-1] if lines else ""))


def _named(operator: str, name: str) -> str:
    name = name if len(name) <= _LONGEST_NAME else f"{name[:_LONGEST_NAME]}…"
    return f"{operator} node {name!r}" if name else f"{operator} node"


def _plain(text: str) -> str:
    """Strip what only the library's authors understand, and cut the rest to a length that an error bears."""
    text = _CONDITION.sub("", _PLACE.sub("", _ONNX_CODE.sub("", text)))
    text = " ".join(_NOISE.sub("", text).split()).rstrip(" .;:")
    return text if len(text) <= _LONGEST_REASON else f"{text[:_LONGEST_REASON]}…"
