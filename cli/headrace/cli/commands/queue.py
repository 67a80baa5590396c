"""`headrace queue`: the state of the queues."""

from __future__ import annotations

from typing import Annotated

import msgspec
import typer

from headrace.cli.terminal.console import Json, print_json, print_table, say
from headrace.cli.terminal.options import seconds, settings_with
from headrace.contracts.message import TASK_PREFIX

app = typer.Typer(no_args_is_help=True, help="Show the queues, and recover messages of crashed workers.")


@app.callback()
def queue() -> None:
    """Show the queues, and recover messages of crashed workers."""


@app.command()
def stats(as_json: Json = False) -> None:
    """Count waiting, running, delayed and dead requests, model by model, and say what keeps them waiting.

    Workers report models whose server is away, misconfigured or has another model than its package says.
    """
    from headrace.queueing import broken_preconditions, connect_to, queue_stats, translate_errors
    from headrace.queueing.consumer.serving import problems_in, served_on

    with translate_errors(), connect_to(settings_with()) as client:
        found = queue_stats(client)
        broken = broken_preconditions(client)
        served = served_on(client, [one.queue for one in found])
    problems = {queue: problems_in(each) for queue, each in served.items()}
    for line in broken:
        typer.echo(f"warning: {line}", err=True)
    if as_json:
        print_json([{**msgspec.to_builtins(one, str_keys=True), "problem": problems[one.queue]} for one in found])
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
    for queue, reported in problems.items():
        for problem in reported:
            typer.echo(f"{queue.removeprefix(TASK_PREFIX)}: {problem}")


@app.command()
def recover(
    older: Annotated[
        float,
        typer.Option(
            "--older",
            metavar="AGE",
            parser=seconds,
            show_default="1h",
            help="Least age of messages taken by redis:// workers: 90s, 15m, 12h; 0s is all, if none of them runs.",
        ),
    ] = "1h",  # type: ignore[assignment]  # the parser reads it
    as_json: Json = False,
) -> None:
    """Return the messages of crashed workers to their queues, including those of Celery's redis:// transport."""
    from headrace.queueing import ClaimingConsumer, connect_to, translate_errors
    from headrace.queueing import recover as recover_unacked

    with translate_errors(), connect_to(settings_with()) as client:
        ours = ClaimingConsumer(client, lease_s=60).reap()
        theirs = recover_unacked(client, older)
    if as_json:
        print_json(
            {"headrace": ours, "redis": theirs.put_back, "younger": theirs.younger, "unroutable": theirs.unroutable}
        )
        return
    say(f"put back {theirs.put_back} of redis:// workers and {ours} of headrace:// workers that died")
    if theirs.younger:
        say(f"left {theirs.younger} that redis:// workers took less than {older:g} s ago; --older takes them too")
    if theirs.unroutable:
        say(f"left {theirs.unroutable} in `unacked` that are bound to no queue; start its worker and try again")
