"""`headrace demo`: real images scored through Celery, Valkey, ONNX Runtime and Postgres, with Flower beside."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Final

import typer
from pydantic import SecretStr

from headrace.cli.demo.clients import IN_FLIGHT, score
from headrace.cli.demo.figures import fact, read_rows, show_example, show_figures, show_mistakes, verdict
from headrace.cli.demo.images import DATA, MODEL, held_out
from headrace.cli.stack.stack import LocalStack, stop_signals_interrupt
from headrace.cli.terminal.errors import StackError
from headrace.contracts import Settings, load_settings
from headrace.contracts.settings import StackAddress

if TYPE_CHECKING:
    from rich.console import Console

__all__ = ["DATA", "MODEL", "demo", "held_out"]

#: Passes over the held-out images with each version: some seconds of work on a laptop, enough to watch.
REPEAT: Final = 5

#: The exit code of a program that Ctrl-C stopped before it was done (128 + SIGINT), as shells have it.
_INTERRUPTED: Final = 130


def _settings(address: StackAddress, home: Path) -> Settings:
    """Return the settings of a client of this stack, whatever URLs are set outside."""
    urls = {"broker_url": SecretStr(address.broker_url), "database_url": SecretStr(address.database_url)}
    return load_settings().model_copy(update={**urls, "home": home, "models": Path(address.models)})


def _present(console: Console, stack: LocalStack, clients: int, repeat: int) -> str | None:
    """Score, print everything, and return the verdict."""
    from headrace.results_store.database.address import connect

    digits = held_out()
    titles = " and in ".join(model.title for model in digits.versions)
    console.print(
        f"\n{clients} clients submit {len(digits.labels)} images {repeat} times to each version of the model, in "
        f"{titles}: one image a request. Each keeps at most {IN_FLIGHT} requests unanswered."
    )
    run = score(console, _settings(stack.address, stack.home), digits, clients, repeat)
    with connect(stack.address.database_url) as connection:
        rows = read_rows(connection, run)
        if rows.succeeded:
            show_figures(console, run, rows)
            show_mistakes(console, run)
            show_example(console, connection, run)
    fact(console, "Flower", f"{stack.address.flower_url} shows the worker, its queue and its batches.")
    return verdict(run, rows)


def demo(
    exit_: Annotated[
        bool, typer.Option("--exit", help="Stop everything at the end instead of waiting for Ctrl-C.")
    ] = False,
    clients: Annotated[int, typer.Option(min=1, max=64, help="Number of concurrent clients.")] = 4,
    repeat: Annotated[
        int, typer.Option(min=1, help="Number of passes over the images with each version of the model.")
    ] = REPEAT,
    home: Annotated[Path | None, typer.Option(help="Folder for data and logs.  [default: .headrace]")] = None,
) -> None:
    """Classify 899 real handwritten digits through Celery, Valkey, ONNX Runtime and Postgres, in fp32 and in int8.

    Starts a Valkey, a Postgres, a worker and Flower of its own, on this machine only, and stops them at the end.
    Stays up until Ctrl-C; with --exit, or when the output is not a terminal, it ends by itself. The exit code is 0
    only if every image was classified with the accuracy that the packages of the model promise.
    """
    from rich.console import Console

    terminal = sys.stdout.isatty()
    # Explicit, since rich would believe FORCE_COLOR and the like more than the pipe it writes to.
    console = Console(force_terminal=terminal, color_system="auto" if terminal else None, markup=False, highlight=False)
    stop_signals_interrupt()
    wrong: str | None = "interrupted"
    try:
        with LocalStack(home or load_settings().home, DATA / "models", report=console.print) as stack:
            wrong = _present(console, stack, clients, repeat)
            if terminal and not exit_ and wrong is None:
                where = "in this folder" if home is None else f"with HEADRACE_HOME={home}"
                console.print(f"\nEverything stays up until Ctrl-C; Client() {where} finds it.", style="bold")
                stack.wait()
    except KeyboardInterrupt:
        if wrong is not None:
            raise typer.Exit(_INTERRUPTED) from None
    if wrong is not None:
        raise StackError(f"the demo did not come out as it must: {wrong}; the logs are in {stack.home / 'logs'}")
