"""`headrace queue`: how full the queues are."""

from __future__ import annotations

import typer

from headrace.cli.commands.options import settings_with
from headrace.cli.console import Json, print_json, print_table
from headrace.contracts.message import TASK_PREFIX

app = typer.Typer(no_args_is_help=True, help="Look at the queues.")


@app.callback()
def queue() -> None:
    """Look at the queues."""


@app.command()
def stats(as_json: Json = False) -> None:
    """Count what waits, what runs and what is dead, model by model."""
    from headrace.queueing import connect_to, queue_stats, translate_errors

    with translate_errors(), connect_to(settings_with()) as client:
        found = queue_stats(client)
    if as_json:
        print_json(found)
        return
    rows = (
        (
            one.queue.removeprefix(TASK_PREFIX),
            one.waiting,
            one.in_flight,
            one.delayed,
            one.oldest_age_s,
            one.dead,
            one.dead_oldest_age_s,
        )
        for one in found
    )
    columns = ("model", "waiting", "running", "delayed", "oldest (s)", "dead", "oldest dead (s)")
    print_table(columns, rows, "nothing waits, runs or is dead")
