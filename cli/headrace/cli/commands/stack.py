"""`headrace up`, `headrace worker` and `headrace flower`: commands that run until they are stopped."""

from __future__ import annotations

import os
from contextlib import suppress
from typing import TYPE_CHECKING, Annotated

import typer

from headrace.cli.stack.flower import DEFAULT_PORT
from headrace.cli.stack.ports import LOOPBACK
from headrace.cli.terminal.console import Json, print_fields, print_json, say
from headrace.cli.terminal.options import Device, Models, settings_with

if TYPE_CHECKING:
    from headrace.cli.stack.stack import LocalStack

Processes = Annotated[
    int, typer.Option("--processes", "-n", min=1, help="Number of worker processes; one per device, or several on CPU.")
]
FlowerPort = Annotated[
    int, typer.Option(min=1, max=65535, help="Port of Flower; another one is chosen if it is taken.")
]


def up(
    models: Models = None,
    processes: Processes = 1,
    flower: Annotated[bool, typer.Option("--flower/--no-flower", help="Start the Flower dashboard.")] = True,
    flower_port: FlowerPort = DEFAULT_PORT,
    as_json: Json = False,
) -> None:
    """Run Valkey, Postgres, a worker and Flower on this machine, until Ctrl-C.

    Everything lives in the folder .headrace (HEADRACE_HOME) and listens on this machine only. Clients and the other
    commands find it by themselves when they run in the same folder. Data are kept for the next start.
    """
    from headrace.cli.stack.stack import LocalStack, StackOptions, stop_signals_interrupt

    settings = settings_with(models=models)
    options = StackOptions(processes=processes, flower_port=flower_port if flower else None)
    stop_signals_interrupt()
    _warn_of_foreign_urls()
    with LocalStack(settings.home, settings.models, options, report=say) as stack:
        with suppress(KeyboardInterrupt):
            if as_json:
                print_json({"address": stack.address, "parts": stack.parts()})
            else:
                _show(stack)
            stack.wait()
        say("stopping")


def _show(stack: LocalStack) -> None:
    address = stack.address
    print_fields(
        [
            ("home", stack.home),
            ("broker", address.broker_url),
            ("database", address.database_url),
            ("models", address.models),
            ("Flower", address.flower_url or "off"),
            *((part.name, f"{part.state}, pid {part.pid}, log {part.log}") for part in stack.parts()),
        ]
    )
    say("ready; Ctrl-C stops it")


def _warn_of_foreign_urls() -> None:
    for name in ("HEADRACE_BROKER_URL", "HEADRACE_DATABASE_URL"):
        if os.environ.get(name):
            say(f"note: {name} is set, so clients started with it use that server, not this stack")


def worker(
    models: Models = None,
    processes: Processes = 1,
    device: Device = None,
    threads: Annotated[
        int | None, typer.Option(min=0, show_default="1", help="Threads per model; 0 lets the runtime decide.")
    ] = None,
    name: Annotated[str, typer.Option(help="Worker name, shown in Flower and in the rows it writes.")] = "headrace",
    log_level: Annotated[str, typer.Option(help="Log level: debug, info, warning or error.")] = "info",
) -> None:
    """Serve the models to the requests in the queues, until Ctrl-C.

    The broker and the database are those of HEADRACE_BROKER_URL and HEADRACE_DATABASE_URL, or of the local stack. The
    first Ctrl-C lets the running batches finish and returns the other requests to their queues.
    """
    settings = settings_with(models=models, device=device, threads=threads)
    if log_level.upper() not in {"DEBUG", "INFO", "WARNING", "ERROR"}:
        raise typer.BadParameter(f"{log_level!r} is not debug, info, warning or error", param_hint="--log-level")
    from headrace.workers.process.supervisor import run_workers

    raise typer.Exit(run_workers(settings, processes=processes, name=name, log_level=log_level.upper()))


def flower(
    port: FlowerPort = DEFAULT_PORT,
    address: Annotated[str, typer.Option(help="Address to listen on; 0.0.0.0 for all, as in a container.")] = (
        LOOPBACK
    ),
) -> None:
    """Run Flower, the dashboard of Celery, until Ctrl-C.

    It listens on this machine only, unless --address says otherwise. FLOWER_* variables are passed on, such as
    FLOWER_BASIC_AUTH.
    """
    from headrace.cli.stack.flower import flower_command, flower_environment, flower_url, is_open
    from headrace.cli.stack.ports import free_port

    broker_url = settings_with().require_broker_url()
    command = flower_command()
    chosen = free_port(port)
    if chosen != port:
        say(f"port {port} is taken; Flower gets port {chosen}")
    environment = flower_environment(broker_url, chosen, address=address)
    if is_open(address, environment):
        say("note: whoever reaches this address sees everything; FLOWER_BASIC_AUTH=user:password asks for a password")
    say(f"Flower: {flower_url(chosen, address)}; Ctrl-C stops it")
    # In place of this process: signals reach Flower itself, and nothing outlives anything.
    os.execve(command[0], command, environment)  # noqa: S606
