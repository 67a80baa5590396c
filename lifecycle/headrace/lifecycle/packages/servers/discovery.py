"""Discovery of a model on servers: the protocol that they speak, and the model's tensors as they describe them."""

from __future__ import annotations

from contextlib import suppress
from typing import Final

import msgspec

from headrace.contracts import PackageError, Settings
from headrace.contracts.formatting import first_line
from headrace.contracts.package.manifest import Manifest
from headrace.contracts.package.server import Server
from headrace.runtimes.remote.base import (
    BadAnswer,
    Connection,
    Misconfigured,
    ModelNotReady,
    Refused,
    RemoteSignature,
    ServerAway,
)
from headrace.runtimes.remote.endpoints.signature_watch import difference
from headrace.runtimes.remote.runtime import OipRuntime, TfServingRuntime, connections
from headrace.runtimes.remote.transport.grpc_status import Unimplemented
from headrace.runtimes.remote.transport.server_text import NotFound

#: Seconds for an answer; servers describe a model without running it.
ASKED_S: Final = 10.0

#: The signature of a SavedModel unless another is asked for.
USUAL_SIGNATURE: Final = "serving_default"


class Discovered(msgspec.Struct, frozen=True):
    """A model on servers. runtime: that speaks their protocol. most_rows: of a batch that all take, 0 is unknown."""

    runtime: str
    signature: RemoteSignature
    most_rows: int


class _OtherProtocol(Exception):
    """The answer of a server that seems to speak another protocol."""


def discover(server: Server, runtime: str, settings: Settings) -> Discovered:
    """Ask every endpoint for the model. runtime: "tfserving", "oip", or "" to find out.

    Raises PackageError when one of them can't be reached, speaks neither protocol, hasn't the model, or has another
    model than the first; Misconfigured and ConfigurationError for credentials.
    """
    first, *others = server.endpoints
    runtime, signature = _ask_any(server, first, runtime, settings)
    most_rows = signature.max_rows
    for endpoint in others:
        try:
            found = _ask(server, endpoint, runtime, settings)
        except _OtherProtocol as exc:
            raise PackageError(f"{endpoint} doesn't answer as {first} does, by {runtime}: {exc}") from None
        if unlike := _unlike(server, signature, found):
            raise PackageError(f"{endpoint} has another model {server.model!r} than {first}: {unlike}")
        most_rows = min(filter(None, (most_rows, found.max_rows)), default=0)
    return Discovered(runtime, signature, most_rows)


def connect(server: Server, endpoint: str, runtime: str, settings: Settings) -> Connection:
    """Return a connection to one endpoint. Raises PackageError, ConfigurationError."""
    one = msgspec.structs.replace(server, endpoints=(endpoint,))
    [(_, connection)] = connections(_draft(one, runtime), settings)
    return connection


def _draft(server: Server, runtime: str, signature: RemoteSignature | None = None) -> Manifest:
    inputs, outputs = (signature.inputs, signature.outputs) if signature else ((), ())
    return Manifest(name="draft", version="0", runtime=runtime, server=server, inputs=inputs, outputs=outputs)


def _unlike(server: Server, signature: RemoteSignature, other: RemoteSignature) -> str:
    """Return how the other differs from a signature; "" if they are the same."""
    there = difference(_draft(server, "", signature), other) or difference(_draft(server, "", other), signature)
    if not there and signature.row_sizes != other.row_sizes:
        return "it takes other numbers of rows"
    return there.replace(", but model.toml says ", ", not ").replace(", which model.toml hasn't", ", which is new")


def _ask_any(server: Server, endpoint: str, runtime: str, settings: Settings) -> tuple[str, RemoteSignature]:
    """Return the protocol of an endpoint, and the model's signature."""
    reasons = []
    for candidate in (runtime,) if runtime else _candidates(server):
        try:
            return candidate, _ask(server, endpoint, candidate, settings)
        except _OtherProtocol as exc:
            reasons.append(f"by {candidate}: {exc}")
    raise PackageError(
        f"{endpoint} doesn't describe the model {server.model!r} ({'; '.join(reasons)}); correct the port or "
        "--remote-name, or write model.toml by hand for a server without descriptions, such as TorchServe"
    )


def _candidates(server: Server) -> tuple[str, ...]:
    if server.label or server.signature_name != USUAL_SIGNATURE:
        return (TfServingRuntime.name,)
    return (OipRuntime.name, TfServingRuntime.name)


def _ask(server: Server, endpoint: str, runtime: str, settings: Settings) -> RemoteSignature:
    connection = connect(server, endpoint, runtime, settings)
    try:
        found = connection.signature(ASKED_S)
        # Some describe a model that they are still loading, and no trial could run on it.
        with suppress(Unimplemented):
            connection.check_ready(ASKED_S)
    except ModelNotReady as exc:
        raise PackageError(f"{first_line(exc)}; wait until the server has loaded it, and add it then") from None
    except ServerAway as exc:
        raise PackageError(f"{first_line(exc)}; start the server, or correct address and port in --server") from None
    except Unimplemented:
        raise _OtherProtocol("the server doesn't offer this call") from None
    except NotFound as exc:
        if not exc.of_model:
            raise _OtherProtocol(exc.line) from None
        chosen = " or --version-of-server" if server.version else " or --label" if server.label else ""
        raise PackageError(f"{exc.line}; load the model there, or correct --remote-name{chosen}") from None
    except (Refused, BadAnswer) as exc:
        raise _OtherProtocol(first_line(exc)) from None
    except Misconfigured as exc:
        raise PackageError(exc.message) from None
    finally:
        connection.close()
    if not found.inputs or not found.outputs:
        raise _OtherProtocol("the server knows the model, but doesn't tell its tensors")
    return found
