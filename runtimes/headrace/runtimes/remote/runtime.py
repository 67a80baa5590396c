"""The runtimes of model servers: packages whose batches are computed elsewhere, by TensorFlow Serving or over OIP."""

from __future__ import annotations

from typing import ClassVar

from headrace.contracts import ModelPackage, PackageError, Settings, load_settings
from headrace.contracts.package.credentials import authorization_of
from headrace.contracts.package.manifest import Manifest
from headrace.contracts.package.server import Server
from headrace.runtimes.remote.base import Access, Address, Connection, parse_address
from headrace.runtimes.remote.endpoints.remote_model import RemoteModel
from headrace.runtimes.remote.oip.grpc import TORCHSERVE, OipGrpc
from headrace.runtimes.remote.oip.http import OipHttp
from headrace.runtimes.remote.oip.torchserve import TorchServeRest
from headrace.runtimes.remote.tfserving.grpc import TfServingGrpc
from headrace.runtimes.remote.tfserving.rest import TfServingRest


class RemoteRuntime:
    """The part that both share. Nothing is connected before the first batch, so that a fork in between does no harm."""

    #: The runtime's name in `model.toml`.
    name: ClassVar[str]

    def __init__(self, device: str, threads: int) -> None:
        """device, threads: of this machine, where nothing is computed."""

    def load(self, package: ModelPackage) -> RemoteModel:
        """Return the model; whether its server is there shows with the first batch.

        Raises PackageError for an address that is none, ConfigurationError for credentials that are missing.
        """
        manifest = package.manifest
        if not manifest.server:
            raise PackageError(
                f"{package.folder} has the runtime {self.name!r} but no [server]; make it by "
                "`headrace models add --server`"
            )
        settings = load_settings()
        return RemoteModel(manifest, manifest.server, connections(manifest, settings), settings.server_timeout_s)


class TfServingRuntime(RemoteRuntime):
    """TensorFlow Serving, by gRPC or REST."""

    name = "tfserving"


class OipRuntime(RemoteRuntime):
    """Servers of the Open Inference Protocol: Triton, KServe, MLServer, OpenVINO Model Server, TorchServe."""

    name = "oip"


def connections(manifest: Manifest, settings: Settings) -> list[tuple[str, Connection]]:
    """Return a connection for each endpoint of a package with a server, with its address for people.

    Raises PackageError for an address that is none, ConfigurationError for credentials that are missing.
    """
    server = manifest.server
    assert server
    access = access_of(settings, server.credentials)
    addresses = [parse_address(endpoint) for endpoint in server.endpoints]
    return [(str(address), _connection(manifest, server, address, access)) for address in addresses]


def access_of(settings: Settings, credentials: str) -> Access:
    """Return how servers are reached. credentials: their name, or "". Raises ConfigurationError."""
    return Access(
        authorization=authorization_of(credentials),
        ca_file=str(settings.server_ca_file or ""),
        cert_file=str(settings.server_cert_file or ""),
        key_file=str(settings.server_key_file or ""),
    )


def _connection(manifest: Manifest, server: Server, address: Address, access: Access) -> Connection:
    is_grpc = address.scheme in {"grpc", "grpcs"}
    if manifest.runtime == TfServingRuntime.name:
        kind = TfServingGrpc if is_grpc else TfServingRest
        return kind(
            address,
            server.model,
            access=access,
            signature_name=server.signature_name,
            version=server.version,
            label=server.label,
        )
    if server.label:
        raise PackageError("[server] has a label, which only TensorFlow Serving knows; name a version instead")
    if is_grpc:
        service = TORCHSERVE if server.flavor == "torchserve" else "inference"
        return OipGrpc(address, server.model, access=access, version=server.version, service=service)
    if not server.flavor.startswith("torchserve-"):
        torchserve = server.flavor == "torchserve"
        return OipHttp(address, server.model, access=access, version=server.version, torchserve=torchserve)
    return TorchServeRest(
        address,
        server.model,
        access=access,
        version=server.version,
        inputs=manifest.inputs,
        outputs=manifest.signature.outputs,
        form="instances" if server.flavor == "torchserve-json" else "row",
    )
