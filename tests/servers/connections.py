"""Every way to reach a model that a server of these tests offers, as the `Connection` that headrace makes of it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final

from headrace.contracts.package.signature import TensorSpec
from headrace.runtimes.remote.base import Access, Address, Connection, parse_address
from headrace.runtimes.remote.oip.grpc import OipGrpc
from headrace.runtimes.remote.oip.http import OipHttp
from headrace.runtimes.remote.oip.torchserve import TorchServeRest
from headrace.runtimes.remote.tfserving.grpc import TfServingGrpc
from headrace.runtimes.remote.tfserving.rest import TfServingRest

#: Datatype, and sizes without rows, of `x` and of `y`.
TENSORS: Final = {
    "affine": ("FP32", (4,)),
    "limited": ("FP32", (4,)),
    "whole": ("INT64", (3,)),
    "half": ("FP16", (4,)),
    "brain": ("BF16", (4,)),
    "text": ("BYTES", (1,)),
    "slow": ("FP32", (4,)),
}

#: TorchServe describes its gRPC service under a name of its own.
_TORCHSERVE: Final = "org.pytorch.serve.grpc.openinference"


def spec(name: str, model: str) -> TensorSpec:
    """Return what a package declares of a tensor."""
    datatype, shape = TENSORS.get(model, TENSORS["affine"])
    return TensorSpec(name=name, datatype=datatype, shape=shape)


def _torchserve_rows(address: Address, model: str, **more: Any) -> Connection:
    return TorchServeRest(address, model, inputs=(spec("x", model),), outputs=(spec("y", model),), **more)


def _torchserve_instances(address: Address, model: str, **more: Any) -> Connection:
    return _torchserve_rows(address, model, form="instances", **more)


@dataclass(frozen=True)
class Way:
    """A server and a protocol of it, and what it can't do. version: of answers. form: of calls, if it has many."""

    server: str
    protocol: str
    connect: Callable[..., Connection]
    version: str = ""
    knows_signature: bool = True
    models: tuple[str, ...] = ("affine", "whole", "text")
    form: str = ""

    def __str__(self) -> str:
        return "-".join(filter(None, (self.server, self.protocol, self.form)))

    def connection(self, address: str, model: str, **more: Any) -> Connection:
        """Return a connection to a model."""
        return self.connect(parse_address(address), model, access=Access(), **more)


def _oip_of_torchserve(address: Address, model: str, **more: Any) -> Connection:
    return OipGrpc(address, model, service=_TORCHSERVE, **more)


_ALL: Final = ("affine", "whole", "text", "limited", "half")

WAYS: Final = (
    Way("triton", "grpc", OipGrpc, version="1", models=_ALL),
    Way("triton", "http", OipHttp, version="1", models=_ALL),
    Way("mlserver", "grpc", OipGrpc, version="v1"),
    Way("mlserver", "http", OipHttp, version="v1"),
    Way("kserve", "grpc", OipGrpc),
    Way("kserve", "http", OipHttp),
    # Over gRPC it hands strings to the model in base64, and puts those of the answer in quotes.
    Way("torchserve-oip", "grpc", _oip_of_torchserve, version="1.0", knows_signature=False, models=("affine", "whole")),
    Way("torchserve", "http", _torchserve_rows, form="rows"),
    Way("torchserve", "http", _torchserve_instances, form="instances"),
    Way("tfserving", "grpc", TfServingGrpc, version="2", models=(*_ALL, "brain")),
    Way("tfserving-content", "grpc", TfServingGrpc, version="2", models=(*_ALL, "brain")),
    Way("tfserving", "http", TfServingRest, models=(*_ALL, "brain")),
)
