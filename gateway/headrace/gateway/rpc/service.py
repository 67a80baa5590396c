"""The service `inference.GRPCInferenceService`: its calls by name, and errors that become statuses."""

from __future__ import annotations

import functools
import logging
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Final, TypeAlias

import grpc
from google.protobuf.message import Message

from headrace.contracts.errors import HeadraceError
from headrace.gateway.inference.failure import Failure
from headrace.gateway.inference.gateway import Gateway
from headrace.gateway.oip.errors import NotSupported
from headrace.gateway.rpc import description
from headrace.gateway.rpc.infer import model_infer
from headrace.gateway.rpc.status import CRASHED, status_of

SERVICE: Final = "inference.GRPCInferenceService"

_Context: TypeAlias = grpc.aio.ServicerContext[bytes, bytes]
_Handler: TypeAlias = Callable[[bytes, _Context], Awaitable[bytes]]

_DESCRIPTIONS: Final[dict[str, Callable[[Gateway, bytes], Awaitable[Message]]]] = {
    "ServerLive": description.server_live,
    "ServerReady": description.server_ready,
    "ServerMetadata": description.server_metadata,
    "ModelReady": description.model_ready,
    "ModelMetadata": description.model_metadata,
    "ModelConfig": description.model_config,
    "ModelStatistics": description.model_statistics,
    "RepositoryIndex": description.repository_index,
}

_LOADING: Final = "loading of models by calls; workers load what their model directory holds (`headrace models add`)"
_MEMORY: Final = "shared memory; send the tensors' bytes"

#: Calls of Triton's extensions that headrace has nothing for → what they ask for.
_UNSUPPORTED: Final = {
    "ModelStreamInfer": "streams of requests; call ModelInfer for each, as many at a time as you like",
    "RepositoryModelLoad": _LOADING,
    "RepositoryModelUnload": _LOADING,
    "SystemSharedMemoryStatus": _MEMORY,
    "SystemSharedMemoryRegister": _MEMORY,
    "SystemSharedMemoryUnregister": _MEMORY,
    "CudaSharedMemoryStatus": _MEMORY,
    "CudaSharedMemoryRegister": _MEMORY,
    "CudaSharedMemoryUnregister": _MEMORY,
    "TraceSetting": "settings of tracing by calls",
    "LogSettings": "settings of logging by calls",
}

#: Calls whose requests and answers are streams.
_STREAMS: Final = frozenset({"ModelStreamInfer"})

_log: Final = logging.getLogger(__name__)


def service_of(gateway: Gateway) -> grpc.GenericRpcHandler:
    """Return the service in front of a gateway. Messages are bytes here: the calls read them, and say what is wrong."""
    calls: dict[str, _Handler] = {"ModelInfer": _guarded("ModelInfer", functools.partial(model_infer, gateway))}
    for name, describe in _DESCRIPTIONS.items():
        calls[name] = _guarded(name, functools.partial(_described, gateway, describe))
    for name, what in _UNSUPPORTED.items():
        calls[name] = _guarded(name, functools.partial(_refused, what))
    return grpc.method_handlers_generic_handler(
        SERVICE,
        {
            name: _of_stream(call) if name in _STREAMS else grpc.unary_unary_rpc_method_handler(call)
            for name, call in calls.items()
        },
    )


async def _described(
    gateway: Gateway,
    describe: Callable[[Gateway, bytes], Awaitable[Message]],
    received: bytes,
    context: _Context,  # noqa: ARG001 — the form of a call
) -> bytes:
    written: bytes = (await describe(gateway, received)).SerializeToString()
    return written


async def _refused(what: str, received: bytes, context: _Context) -> bytes:  # noqa: ARG001 — the form of a call
    raise NotSupported(f"headrace has no {what}")


def _of_stream(call: _Handler) -> grpc.RpcMethodHandler[bytes, bytes]:
    async def answer(requests: AsyncIterator[bytes], context: _Context) -> None:  # noqa: ARG001 — the form of a call
        await call(b"", context)

    return grpc.stream_stream_rpc_method_handler(answer)


def _guarded(name: str, call: _Handler) -> _Handler:
    """Make a call whose errors become statuses. Unknown errors are logged, not shown."""

    async def guarded(received: bytes, context: _Context) -> bytes:
        try:
            return await call(received, context)
        except (Failure, HeadraceError) as exc:
            status = status_of(exc)
        except Exception:  # noqa: BLE001 — the last seam: a client gets a status, the log the cause
            _log.exception("call_crashed call=%s", name)
            status = CRASHED
        return await context.abort(status.code, status.text, status.metadata)

    return guarded
