"""A local stack for one job, where no other servers are named and none runs."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

import typer

from headrace.cli.terminal.console import say
from headrace.contracts.package.manifest import ModelDirectory
from headrace.contracts.settings import Settings, load_settings

if TYPE_CHECKING:
    from headrace.cli.stack.stack import LocalStack


def is_needed(settings: Settings) -> bool:
    """Return whether nothing names servers, and no local stack runs."""
    return settings.broker_url is None and settings.database_url is None


@contextmanager
def own_stack(settings: Settings, model: str, processes: int) -> Iterator[LocalStack]:
    """Run a stack while the block runs, in the main thread, and stop it afterwards, whatever happens.

    Raises UnknownModel before anything is started, StackError.
    """
    from headrace.cli.stack.stack import LocalStack, StackOptions, stop_signals_interrupt

    ModelDirectory(settings.models).get(model)
    count = max(1, processes)
    say(
        f"no stack runs here, so one is started for this job in {settings.home}: Valkey, Postgres and "
        f"{count} worker process{'es' if count > 1 else ''}"
    )
    stop_signals_interrupt()
    with LocalStack(settings.home, settings.models, StackOptions(processes=count, flower_port=None)) as stack:
        yield stack


def settings_of_stack(models: Settings) -> Settings:
    """Return the settings now that a stack runs: its URLs, and all else as before."""
    found = load_settings()
    return models.model_copy(update={"broker_url": found.broker_url, "database_url": found.database_url})


def refuse_detached() -> None:
    """Refuse to leave a job to a stack that ends with this command."""
    raise typer.BadParameter(
        "no stack runs here that could go on with the job; start one with `headrace up`, or leave --detach out",
        param_hint="--detach",
    )
