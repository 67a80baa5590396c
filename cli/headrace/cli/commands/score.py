"""`headrace score`: a bulk job from the command line."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Final

import typer

from headrace.cli.commands.jobs.options import Again, How, What, options_of
from headrace.cli.terminal.console import Json, print_json, say
from headrace.cli.terminal.option_groups import with_option_groups
from headrace.cli.terminal.options import settings_with
from headrace.contracts.errors import InvalidRequest
from headrace.contracts.jobs import STORE

if TYPE_CHECKING:
    from headrace.cli.stack.stack import LocalStack
    from headrace.producers import Job
    from headrace.producers.jobs.order import Order, ScoreOptions
    from headrace.results_store.jobs.progress import Progress

#: `--detach` waits this long for the first shard, or for the reason why there is none.
_VERDICT_S: Final = 10.0
_LOOK_S: Final = 0.1

_INTERRUPTED: Final = 130


@with_option_groups
def score(  # noqa: PLR0913, PLR0917  (the options of a command are its arguments)
    model: Annotated[str, typer.Argument(metavar="MODEL", show_default=False, help="Model name.")],
    inputs: Annotated[
        list[str],
        typer.Argument(
            metavar="INPUT",
            show_default=False,
            help="Files, folders, globs, URIs, `sql:SELECT …` or `@query.sql`.",
        ),
    ],
    what: What,
    how: How,
    again: Again,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Score a sample, tell how long all takes.")] = False,
    watch: Annotated[bool, typer.Option("--watch/--detach", help="Wait for the end, or leave at once.")] = True,
    as_json: Json = False,
) -> None:
    """Score all rows of files with a model, on any number of workers.

    The same command again goes on with what is missing. Workers read the inputs and write the output, so both must be
    where they can reach them. Ctrl-C stops watching, not the job. Without servers, a local stack runs for the job.
    """
    options = options_of(what, how, again, dry_run=dry_run)
    order = _checked(model, inputs, what.output, options)
    if not what.output and not dry_run:
        say(f"output: {order.spec.output}")
    with _job(order, inputs, options, detached=not watch) as (job, stack):
        _say_step(job)
        if dry_run:
            _dry_run(job, stack, as_json=as_json)
        elif watch:
            _watch(job, stack, as_json=as_json)
        else:
            _detach(job, as_json=as_json)


def _checked(model: str, inputs: list[str], output: str, options: ScoreOptions) -> Order:
    """Check the options before anything is started: misuse has an exit code of its own."""
    from headrace.producers.jobs.order import order_of

    try:
        return order_of(model, inputs, output, options, Path.cwd())
    except InvalidRequest as exc:
        raise typer.BadParameter(exc.message) from None


@contextmanager
def _job(
    order: Order, inputs: list[str], options: ScoreOptions, *, detached: bool
) -> Iterator[tuple[Job, LocalStack | None]]:
    """Create or find the job, if need be on a stack of its own, which ends with the block."""
    from headrace.cli.commands.jobs.own_stack import is_needed, own_stack, refuse_detached, settings_of_stack
    from headrace.producers import Client

    settings = settings_with()
    with ExitStack() as undo:
        stack = None
        if is_needed(settings):
            if detached:
                refuse_detached()
            stack = undo.enter_context(own_stack(settings, order.spec.model, order.options.workers))
            settings = settings_of_stack(settings)
        client = undo.enter_context(Client(settings))
        yield client.score(order.spec.model, inputs, order.spec.output, **options), stack


def _say_step(job: Job) -> None:
    from headrace.producers.jobs.attaching import Step

    if job.step is None:
        say(f"job {job.id}")
        return
    phrases = {
        Step.ATTACH: "runs already; watching it",
        Step.RESUME: "was begun before; only what is missing runs",
        Step.RESTART: "begins anew",
        Step.ADD_NEW: "looks for new files",
        Step.REPORT: "has succeeded before; --add-new looks for new files, --restart begins anew",
    }
    say(f"job {job.id} {phrases[job.step]}")


def _watch(job: Job, stack: LocalStack | None, *, as_json: bool) -> None:
    from headrace.cli.commands.jobs.lines import end_lines
    from headrace.producers.jobs.job import check_end

    try:
        last = _to_the_end(job, stack)
    except KeyboardInterrupt:
        _say_interrupted(job, stack)
        raise typer.Exit(_INTERRUPTED) from None
    if as_json:
        print_json(last)
    check_end(last)
    if not as_json:
        for line in end_lines(last):
            say(line)


def _to_the_end(job: Job, stack: LocalStack | None) -> Progress:
    """Show the progress of a job until it has ended; return the last. Raises StackError when its own stack breaks."""
    from headrace.cli.commands.jobs.watching import watched

    for progress in watched(job, job.watch()):
        last = progress
        if stack is not None:
            stack.check()
    return last


def _say_interrupted(job: Job, stack: LocalStack | None) -> None:
    if stack is not None:
        say("stopping the stack of this job; the same command again goes on with what is missing")
        return
    say(
        f"no longer watching; the job goes on: `headrace jobs watch {job.name}` watches it, "
        f"`headrace jobs cancel {job.name}` cancels it"
    )


def _detach(job: Job, *, as_json: bool) -> None:
    """Leave the job to the workers, but not before it is known that it can run, if that is known soon."""
    progress = _verdict(job)
    if as_json:
        print_json(progress)
    else:
        typer.echo(job.id)
        say(f"{progress.job.state}; `headrace jobs watch {job.name}` watches it")


def _verdict(job: Job) -> Progress:
    """Wait for the first shard, for an error, or for some time. Raises JobFailed."""
    from headrace.producers.jobs.job import check_end, has_ended

    until = time.monotonic() + _VERDICT_S
    for progress in job.watch(_LOOK_S):
        if has_ended(progress):
            return check_end(progress)
        if progress.shards_done or time.monotonic() >= until:
            break
    return progress


def _dry_run(job: Job, stack: LocalStack | None, *, as_json: bool) -> None:
    from headrace.cli.commands.jobs.report import print_dry_run
    from headrace.producers.jobs.job import check_end

    try:
        last = _to_the_end(job, stack)
    except KeyboardInterrupt:
        job.cancel()
        say("the dry run is cancelled")
        raise typer.Exit(_INTERRUPTED) from None
    check_end(last)
    found = job.sample()
    if found is None:
        raise InvalidRequest(f"job {job.name} left no sample; its workers are older than this client: upgrade them")
    if as_json:
        print_json(found)
    else:
        print_dry_run(found, to_store=job.output == STORE)
