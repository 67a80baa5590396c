"""Tables of jobs: the list, one job with its workers and bad rows, the outcome of a dry run."""

from __future__ import annotations

import posixpath
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Final

from rich.text import Text

from headrace.cli.commands.jobs.lines import amount, done, span
from headrace.cli.terminal.console import out, print_fields, print_table
from headrace.contracts.formatting import sized
from headrace.contracts.jobs import DryRun
from headrace.producers.jobs.attaching import short, why_failed

if TYPE_CHECKING:
    from headrace.results_store.jobs.progress import Progress, WorkerSeconds
    from headrace.results_store.jobs.records import JobError

#: Characters of a value in a table of rows; embeddings have thousands of numbers.
_CELL: Final = 60

_WORKER_COLUMNS: Final = (
    "worker",
    "running",
    "shards",
    "rows",
    "read",
    "read (s)",
    "decode (s)",
    "infer (s)",
    "write (s)",
)


def print_jobs(found: Sequence[Progress]) -> None:
    """Print jobs, one a line."""
    rows = [
        (
            short(one.job),
            one.job.spec.model,
            one.job.state,
            done(one),
            one.rows_done,
            round(one.rows_per_s),
            one.rows_bad,
            one.job.created_at.astimezone().strftime("%Y-%m-%d %H:%M"),
            "dry run" if one.job.options.dry_run else one.job.spec.output,
        )
        for one in found
    ]
    columns = ("job", "model", "state", "done", "rows", "rows/s", "bad", "created", "output")
    print_table(columns, rows, "no jobs; `headrace score MODEL INPUT` starts one")


def print_job(progress: Progress, bad: Sequence[JobError], files: Mapping[int, str]) -> None:
    """Print all about one job. files: URIs of the files of bad rows, by their numbers."""
    job = progress.job
    fields: list[tuple[str, object]] = [
        ("job", job.id),
        *([("name", job.name)] if job.name else []),
        ("model", f"{job.spec.model} {job.version}"),
        *(("input", each) for each in job.spec.inputs),
        ("output", job.spec.output),
        *(("note", line) for line in job.notes),
        ("state", job.state),
        *([("error", why_failed(job.error))] if job.error else []),
        ("done", ", ".join(filter(None, (done(progress), amount(progress))))),
        ("rows", f"{progress.rows_ok:,} ok, {progress.rows_bad:,} bad, {progress.rows_skipped:,} skipped"),
        ("shards", _shards(progress)),
        ("rows/s", f"{progress.rows_per_s:,.0f}"),
        *([("left", span(progress.remaining_s))] if progress.remaining_s else []),
        ("read", sized(progress.bytes_read)),
        ("written", sized(progress.part_bytes)),
        ("created", job.created_at.astimezone().isoformat(timespec="seconds")),
        *([("finished", job.finished_at.astimezone().isoformat(timespec="seconds"))] if job.finished_at else []),
    ]
    print_fields(fields)
    if progress.workers:
        print_table(_WORKER_COLUMNS, map(_worker_row, progress.workers), "")
    if bad:
        print_table(("file", "row", "line", "stage", "type", "message"), (_bad_row(row, files) for row in bad), "")


def _shards(progress: Progress) -> str:
    return f"{progress.shards_done:,} done, {progress.shards_running:,} running, {progress.shards_waiting:,} waiting"


def _worker_row(one: WorkerSeconds) -> tuple[object, ...]:
    rows = one.rows_ok + one.rows_bad + one.rows_skipped
    seconds = (one.read_s, one.decode_s, one.infer_s, one.write_s)
    return (one.worker, one.running, one.shards, rows, sized(one.bytes_read), *seconds)


def _bad_row(one: JobError, files: Mapping[int, str]) -> tuple[object, ...]:
    name = posixpath.basename(files.get(one.file_no, "")) or one.file_no
    return (name, one.row, one.line or None, one.stage, one.type, one.message)


def print_dry_run(found: DryRun, *, to_store: bool) -> None:
    """Print what a dry run found. to_store: whether the output would be rows of Postgres."""
    total = "unknown" if found.total_rows < 0 else f"{found.total_rows:,} rows"
    size = "" if found.total_bytes < 0 else f", {sized(found.total_bytes)}"
    workers = f"{found.workers} worker process{'' if found.workers == 1 else 'es'}"
    bad = f", {found.bad:,} bad" if found.bad else ""
    print_fields(
        [
            ("sample", f"{found.rows:,} rows scored{bad}, in {found.seconds:.2f} s"),
            ("input", f"{total}{size}"),
            ("time", _known(found.seconds_high, f"{span((found.seconds_low, found.seconds_high))} on {workers}")),
            ("rows in Postgres" if to_store else "output", _known(found.output_bytes, sized(found.output_bytes))),
            ("memory", f"{sized(found.memory_bytes)} a worker process"),
            *(("note", line) for line in found.notes),
            *(("problem", line) for line in found.problems),
        ]
    )
    if found.preview:
        columns = list(found.columns or found.preview[0])
        heads = [f"{name} {found.columns.get(name, '')}".strip() for name in columns]
        print_table(heads, ([_short(row.get(name)) for name in columns] for row in found.preview), "")
    out().print(Text("nothing was written", style="dim"))


def _known(figure: float, text: str) -> str:
    return text if figure >= 0 else "unknown"


def _short(value: object) -> str:
    text = str(value)
    return text if len(text) <= _CELL else f"{text[: _CELL - 1]}…"
