"""`headrace gateway`: HTTP in front of the queue."""

from __future__ import annotations

from typing import Annotated

import typer

from headrace.cli.stack.ports import LOOPBACK
from headrace.cli.terminal.console import say
from headrace.cli.terminal.options import Models, settings_with

#: Addresses that only programs of this machine reach.
_LOOPBACK = frozenset({LOOPBACK, "localhost", "::1"})


def gateway(
    models: Models = None,
    host: Annotated[
        str | None,
        typer.Option(show_default=LOOPBACK, help="Address to listen on; also HEADRACE_GATEWAY_HOST."),
    ] = None,
    port: Annotated[
        int | None,
        typer.Option(
            min=0, max=65535, show_default="8000", help="Port; 0 takes a free one. Also HEADRACE_GATEWAY_PORT."
        ),
    ] = None,
    processes: Annotated[
        int | None,
        typer.Option(
            "--processes",
            "-n",
            min=1,
            max=256,
            show_default="1",
            help="Number of processes on the port; also HEADRACE_GATEWAY_PROCESSES.",
        ),
    ] = None,
) -> None:
    """Take requests over HTTP (Open Inference Protocol v2), until Ctrl-C.

    Requests go to the workers' queues, and every answer is a row. On SIGTERM, requests that wait have
    HEADRACE_GATEWAY_GRACE_S to get their answers.
    """
    from headrace.gateway.serving.run import check, open_port, run_gateway, url_of

    settings = settings_with(models=models, gateway_host=host, gateway_port=port, gateway_processes=processes)
    check(settings)
    with open_port(settings) as listening:
        url = url_of(listening)
        if settings.gateway_host not in _LOOPBACK:
            say("note: whoever reaches this address may send requests; put a proxy that asks for keys in front of it")
        say(f"gateway: {url}; models: {url}/v2/models; Ctrl-C stops it")
        raise typer.Exit(run_gateway(settings, listening))
