"""`headrace jobs`: list, show, watch and steer bulk jobs."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Annotated, Any, Final

import msgspec
import typer

from headrace.cli.terminal.console import Json, print_json, say
from headrace.cli.terminal.options import settings_with

if TYPE_CHECKING:
    from headrace.producers import Job
    from headrace.producers.jobs.desk import JobDesk
    from headrace.results_store.jobs.records import JobError

app = typer.Typer(no_args_is_help=True, help="List, watch, pause, resume, cancel and retry bulk jobs.")

#: Jobs that `list` shows by default, and bad rows that `show` does.
_SHOWN: Final = 20
_BAD: Final = 5

_INTERRUPTED: Final = 130

Ref = Annotated[
    str, typer.Argument(metavar="JOB", show_default=False, help="Name, id, or the beginning or end of an id.")
]


@app.command(name="list")
def list_(
    limit: Annotated[int, typer.Option(min=1, help="Maximum number of jobs to show.")] = _SHOWN, as_json: Json = False
) -> None:
    """List bulk jobs, the newest first."""
    from headrace.cli.commands.jobs.report import print_jobs

    with _desk() as desk:
        found = desk.newest(limit)
    if as_json:
        print_json(found)
    else:
        print_jobs(found)


@app.command()
def show(
    job: Ref,
    errors: Annotated[int, typer.Option(min=0, help="Maximum number of bad rows to show.")] = _BAD,
    as_json: Json = False,
) -> None:
    """Show one job: how far it is, what its workers do, its bad rows."""
    from headrace.cli.commands.jobs.report import print_job

    with _job(job) as found:
        progress = found.progress()
        bad = found.errors(errors) if errors else []
        files = found.files(row.file_no for row in bad)
    if as_json:
        print_json({**msgspec.to_builtins(progress), "errors": [_error(one, files) for one in bad]})
    else:
        print_job(progress, bad, files)


@app.command()
def watch(job: Ref, as_json: Json = False) -> None:
    """Watch a job until it has ended; Ctrl-C stops watching, not the job. With --json, one document a line."""
    from headrace.cli.commands.jobs.lines import end_lines
    from headrace.cli.commands.jobs.watching import watched
    from headrace.producers.jobs.job import check_end

    with _job(job) as found:
        try:
            for progress in watched(found, found.watch(), as_json=as_json):
                last = progress
        except KeyboardInterrupt:
            say(f"no longer watching; the job goes on, `headrace jobs cancel {found.name}` cancels it")
            raise typer.Exit(_INTERRUPTED) from None
    check_end(last)
    if not as_json:
        for line in end_lines(last):
            say(line)


@app.command()
def pause(job: Ref, as_json: Json = False) -> None:
    """Stop after what runs; `resume` goes on."""
    with _job(job) as found:
        found.pause()
        _report(found, "pauses; what its workers have done is published", as_json=as_json)


@app.command()
def resume(job: Ref, as_json: Json = False) -> None:
    """Go on with a paused, failed or cancelled job: only what is missing runs."""
    with _job(job) as found:
        found.resume()
        _report(found, "goes on", as_json=as_json)


@app.command()
def cancel(job: Ref, as_json: Json = False) -> None:
    """Stop a job; what is done is kept, and `resume` would go on with the rest."""
    with _job(job) as found:
        found.cancel()
        _report(found, "is cancelled; what was done is kept", as_json=as_json)


@app.command()
def retry(job: Ref, as_json: Json = False) -> None:
    """Run the bad rows of a job that has ended once more, and only those."""
    with _job(job) as found:
        count = found.retry()
        _report(found, f"runs {count:,} bad rows again", as_json=as_json)


@contextmanager
def _desk() -> Iterator[JobDesk]:
    from headrace.producers.jobs.desk import JobDesk

    desk = JobDesk(settings_with())
    try:
        yield desk
    finally:
        desk.close()


@contextmanager
def _job(reference: str) -> Iterator[Job]:
    from headrace.producers.jobs.job import Job

    with _desk() as desk:
        yield Job(desk, desk.find(reference))


def _error(one: JobError, files: dict[int, str]) -> dict[str, Any]:
    """Return a bad row for programs; its input as text where it is text. files: URIs by their numbers."""
    plain: dict[str, Any] = msgspec.structs.asdict(one)
    plain["file"] = files.get(one.file_no, "")
    plain["input"] = one.input.decode("utf-8", "replace")
    return plain


def _report(job: Job, what: str, *, as_json: bool) -> None:
    if as_json:
        print_json({"id": job.id, "state": job.status()})
    else:
        say(f"job {job.name} {what}")
