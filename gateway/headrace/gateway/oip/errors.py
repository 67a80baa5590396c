"""Errors of bodies, with the place in them."""

from __future__ import annotations

from headrace.contracts.errors import InvalidRequest, SignatureMismatch


class _InField(InvalidRequest):
    def __init__(self, message: str, field: str = "") -> None:
        """field: place in the request, such as `inputs[0].shape`, or the name of an output of the answer."""
        super().__init__(message)
        self.field = field


class MalformedBody(_InField):
    """The body is not an inference request of the Open Inference Protocol v2; docs/gateway.md shows one."""


class MalformedInput(_InField, SignatureMismatch):
    """An input is not what its datatype and shape say."""


class NotSupported(_InField):
    """The request asks for something that headrace does not have."""


class NotInJson(_InField):
    """The answer holds values that JSON has no form for; ask for them as bytes, with `binary_data`."""
