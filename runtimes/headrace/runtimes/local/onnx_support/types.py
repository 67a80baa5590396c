"""ONNX Runtime's names of tensor types."""

from __future__ import annotations

from typing import Final

#: ONNX Runtime's names of element types → OIP v2 datatypes.
ELEMENTS: Final = {
    "bool": "BOOL",
    "uint8": "UINT8",
    "uint16": "UINT16",
    "uint32": "UINT32",
    "uint64": "UINT64",
    "int8": "INT8",
    "int16": "INT16",
    "int32": "INT32",
    "int64": "INT64",
    "float16": "FP16",
    "float": "FP32",
    "double": "FP64",
    "bfloat16": "BF16",
    "string": "BYTES",
}


def datatype_of_tensor(type_name: str) -> str | None:
    """Return the OIP v2 datatype of a tensor's type, such as `tensor(float)`; None for what is no plain tensor."""
    if not type_name.startswith("tensor("):
        return None
    return ELEMENTS.get(type_name.removeprefix("tensor(").removesuffix(")"))
