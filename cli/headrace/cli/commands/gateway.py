"""`headrace gateway`: HTTP and gRPC in front of the queue."""

from __future__ import annotations

from typing import Annotated, TypeAlias

import typer

from headrace.cli.stack.ports import LOOPBACK
from headrace.cli.terminal.console import say
from headrace.cli.terminal.options import Models, settings_with

#: Addresses that only programs of this machine reach.
_LOOPBACK = frozenset({LOOPBACK, "localhost", "::1"})


Host: TypeAlias = Annotated[
    str | None, typer.Option(show_default=LOOPBACK, help="Address to listen on; also HEADRACE_GATEWAY_HOST.")
]
Port: TypeAlias = Annotated[
    int | None,
    typer.Option(min=0, max=65535, show_default="8000", help="Port; 0 takes a free one. Also HEADRACE_GATEWAY_PORT."),
]
Grpc: TypeAlias = Annotated[
    bool | None,
    typer.Option(
        "--grpc/--no-grpc", show_default="--grpc", help="Take requests over gRPC, too; also HEADRACE_GATEWAY_GRPC."
    ),
]
GrpcPort: TypeAlias = Annotated[
    int | None,
    typer.Option(
        min=0,
        max=65535,
        show_default="8001",
        help="Port for gRPC; 0 takes a free one, --no-grpc does without. Also HEADRACE_GATEWAY_GRPC_PORT.",
    ),
]
Processes: TypeAlias = Annotated[
    int | None,
    typer.Option(
        "--processes",
        "-n",
        min=1,
        max=256,
        show_default="1",
        help="Number of processes on the ports; also HEADRACE_GATEWAY_PROCESSES.",
    ),
]


def gateway(
    models: Models = None,
    host: Host = None,
    port: Port = None,
    grpc: Grpc = None,
    grpc_port: GrpcPort = None,
    processes: Processes = None,
) -> None:
    """Take requests over HTTP and gRPC (Open Inference Protocol v2), until Ctrl-C.

    Requests go to the workers' queues, and every answer is a row. On SIGTERM, requests that wait have
    HEADRACE_GATEWAY_GRACE_S to get their answers.
    """
    from headrace.gateway.serving.run import check, open_port, rpc_port, run_gateway, url_of
    from headrace.gateway.serving.server import address_of

    settings = settings_with(
        models=models,
        gateway_host=host,
        gateway_port=port,
        gateway_grpc=grpc,
        gateway_grpc_port=grpc_port,
        gateway_processes=processes,
    )
    check(settings)
    with open_port(settings) as listening, rpc_port(settings) as chosen:
        url = url_of(listening)
        if settings.gateway_host not in _LOOPBACK:
            say("note: whoever reaches this address may send requests; put a proxy that asks for keys in front of it")
        grpc_line = f"gRPC: {address_of(listening, chosen.gateway_grpc_port)}; " if chosen.gateway_grpc else ""
        say(f"gateway: {url}; models: {url}/v2/models; {grpc_line}Ctrl-C stops it")
        raise typer.Exit(run_gateway(chosen, listening))
