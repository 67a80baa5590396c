"""Descriptions of servers of the Open Inference Protocol, and of their models, over HTTP."""

from __future__ import annotations

import re
from collections.abc import Sequence
from http import HTTPStatus
from typing import Final

import msgspec

from headrace.runtimes.remote.base import BadAnswer, RemoteSignature
from headrace.runtimes.remote.encoding.specs import Described, signature_of
from headrace.runtimes.remote.transport.http_reply import Reply, has_no_handler

#: The first version of KServe's Python server that takes binary tensors; it doesn't list the extension.
_KSERVE_BINARY: Final = (0, 14)


class Server(msgspec.Struct):
    """A server. extensions: of the protocol."""

    name: str = ""
    version: str = ""
    extensions: list[str] = []

    @property
    def takes_binary(self) -> bool:
        """Whether tensors may be sent as bytes."""
        if self.name == "kserve":
            return tuple(map(int, re.findall(r"\d{1,9}", self.version)[:2])) >= _KSERVE_BINARY
        return "binary_tensor_data" in self.extensions

    @property
    def takes_time_limit(self) -> bool:
        """Whether a batch may say how long it waits in the server's own queue."""
        return "schedule_policy" in self.extensions

    @property
    def shows_config(self) -> bool:
        """Whether a model's configuration can be asked for."""
        return "model_configuration" in self.extensions


class _Tensor(msgspec.Struct):
    name: str
    datatype: str
    shape: list[int]


class _Model(msgspec.Struct):
    inputs: list[_Tensor] | None = None
    outputs: list[_Tensor] | None = None
    versions: list[str] | None = None
    platform: str | None = None


def read_server(reply: Reply) -> Server:
    """Return the server that an answer describes, one without extensions where it has no description."""
    if is_unknown_path(reply) or reply.status == HTTPStatus.METHOD_NOT_ALLOWED:
        return Server()
    document = reply.document()
    try:
        return msgspec.convert(document, Server)
    except msgspec.ValidationError:
        # Some leave fields out or have null there; JSON is what every server takes.
        return Server(name=str(document.get("name", "")))


def read_model(reply: Reply) -> RemoteSignature:
    """Return the signature in a model's description. Raises BadAnswer, and PackageError for tensors without rows.

    Models without a description have no tensors there. version: the last that is listed.
    """
    try:
        model = msgspec.convert(reply.document(), _Model)
    except msgspec.ValidationError as exc:
        raise BadAnswer(f"the description of the model can't be read: {exc}") from None
    found = signature_of(_described(model.inputs), _described(model.outputs), (model.versions or [""])[-1])
    return msgspec.structs.replace(found, platform=model.platform or "")


def is_unknown_path(reply: Reply) -> bool:
    """Return whether a server has no such path at all, rather than no such model or version of it."""
    return reply.status == HTTPStatus.NOT_IMPLEMENTED or has_no_handler(reply)


def _described(tensors: Sequence[_Tensor] | None) -> list[Described]:
    return [Described(tensor.name, tensor.datatype, tuple(tensor.shape)) for tensor in tensors or ()]
