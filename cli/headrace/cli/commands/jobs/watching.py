"""Watching a job: a bar in a terminal, a line now and then elsewhere, a JSON document a line for programs."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Final, TypeAlias

import msgspec
import typer
from rich.progress import BarColumn, TextColumn
from rich.progress import Progress as Bars

from headrace.cli.commands.jobs.lines import progress_line
from headrace.cli.terminal.console import err, say
from headrace.contracts.jobs import JobState
from headrace.producers.jobs.job import Job

if TYPE_CHECKING:
    from headrace.results_store.jobs.progress import Progress

#: Outside of a terminal, a line this often, and whenever the state changes.
_LINE_S: Final = 10.0

#: A job that makes no progress for so long makes one ask for the reason.
_STANDSTILL_S: Final = 5.0

Show: TypeAlias = "Callable[[Progress], None]"


def watched(job: Job, readings: Iterable[Progress], *, as_json: bool = False) -> Iterator[Progress]:
    """Show readings of a job as they come, and pass them on."""
    standstill, noted = _Standstill(job), as_json
    with _json_lines() if as_json else _shown(job.spec.title) as show:
        for progress in readings:
            if progress.job.notes and not noted:
                noted = True
                for note in progress.job.notes:
                    say(f"note: {note}")
            show(progress)
            standstill(progress)
            yield progress


@contextmanager
def _json_lines() -> Iterator[Show]:
    yield lambda progress: typer.echo(msgspec.json.encode(progress).decode())


@contextmanager
def _shown(name: str) -> Iterator[Show]:
    console = err()
    if not console.is_terminal:
        yield _Lines(name)
        return
    columns = (TextColumn("{task.description}", markup=False), BarColumn(bar_width=24), _text("what"))
    with Bars(*columns, console=console, transient=True) as bars:
        task = bars.add_task(name, total=1.0, what="")
        yield lambda progress: bars.update(task, completed=progress.share or 0.0, what=progress_line(progress))


def _text(field: str) -> TextColumn:
    return TextColumn(f"{{task.fields[{field}]}}", markup=False)


class _Lines:
    """A line now and then."""

    def __init__(self, name: str) -> None:
        self._name = name
        self._at = -_LINE_S
        self._state = ""

    def __call__(self, progress: Progress) -> None:
        now = time.monotonic()
        if progress.job.state == self._state and now - self._at < _LINE_S:
            return
        self._at, self._state = now, progress.job.state
        say(f"{self._name}: {progress_line(progress)}")


class _Standstill:
    """A word on a job that makes no progress: that no worker takes it, or what its workers report."""

    def __init__(self, job: Job) -> None:
        self._job = job
        self._rows = -1
        self._since = time.monotonic()
        self._told: set[str] = set()

    def __call__(self, progress: Progress) -> None:
        now = time.monotonic()
        if progress.rows_done != self._rows or progress.job.state not in {JobState.PLANNING, JobState.RUNNING}:
            self._rows, self._since = progress.rows_done, now
        if now - self._since < _STANDSTILL_S:
            return
        self._since = now
        text = self._why(progress)
        if text and text not in self._told:
            self._told.add(text)
            say(text)

    def _why(self, progress: Progress) -> str:
        job = self._job
        if not progress.shards_running and not job.is_served():
            return (
                f"no worker takes bulk jobs of model {job.model!r} at present, so job {job.name} waits; "
                'start one with `headrace worker --models DIR` where "headrace[bulk]" is installed'
            )
        problem = job.problem()
        return f"job {job.name} waits; its worker reports: {problem}" if problem else ""
