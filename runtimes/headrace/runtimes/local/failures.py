"""Which errors of a runtime may pass: too little memory, a device that is gone for now."""

from __future__ import annotations

import re
from typing import Final

from headrace.contracts.wording import first_line
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


def passing_failure(exc: Exception) -> TransientFailure | None:
    """Give the TransientFailure that an error of a runtime stands for; None if it will fail again."""
    text = str(exc)
    if isinstance(exc, MemoryError) or _OUT_OF_MEMORY.search(text):
        return OutOfMemory(first_line(exc))
    return TransientFailure(first_line(exc)) if _DEVICE_LOST.search(text) else None
