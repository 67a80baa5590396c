"""Errors of bodies, with the place in them."""

from __future__ import annotations

from headrace.contracts.errors import InvalidRequest, SignatureMismatch


class MalformedBody(InvalidRequest):
    """The body is not an inference request of the Open Inference Protocol v2; docs/gateway.md shows one."""

    def __init__(self, message: str, field: str = "") -> None:
        """field: place in the JSON, such as `inputs[0].shape`."""
        super().__init__(message)
        self.field = field


class MalformedInput(SignatureMismatch):
    """An input is not what its datatype and shape say."""

    def __init__(self, message: str, field: str) -> None:
        """field: place in the JSON, such as `inputs[0].data`."""
        super().__init__(message)
        self.field = field


class NotSupported(InvalidRequest):
    """The request asks for something that headrace does not have."""

    def __init__(self, message: str, field: str = "") -> None:
        """field: place in the JSON that asks for it."""
        super().__init__(message)
        self.field = field


class NotInJson(InvalidRequest):
    """The answer holds values that JSON has no form for; ask for them as bytes, with `binary_data`."""

    def __init__(self, message: str, field: str) -> None:
        """field: the output."""
        super().__init__(message)
        self.field = field
