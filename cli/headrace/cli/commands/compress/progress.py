"""Progress of a search: a bar while a recipe is made, a line when it has ended."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from typing import TYPE_CHECKING

from rich.console import Console
from rich.progress import BarColumn, Progress, TaskID, TextColumn, TimeElapsedColumn
from rich.text import Text

from headrace.cli.terminal.console import err
from headrace.contracts.formatting import sized

if TYPE_CHECKING:
    from headrace.compression.search.trials import Trial, Verdict


class Terminal:
    """A SearchCallbacks of a search, for a person. Without a terminal only the lines are written."""

    def __init__(self, at_rows: int) -> None:
        """at_rows: batch size whose time is shown."""
        self._console: Console = err()
        self._at_rows = at_rows
        self._bar = Progress(
            TextColumn("{task.description}"),
            BarColumn(bar_width=24),
            TextColumn("{task.fields[what]}"),
            TimeElapsedColumn(),
            console=self._console,
            transient=True,
        )
        self._task: TaskID | None = None

    def show(self) -> Progress | nullcontext[None]:
        """Return the context that keeps the bar on the screen, if there is one."""
        if not self._console.is_terminal:
            return nullcontext()
        self._task = self._bar.add_task("", total=None, what="")
        return self._bar

    def started(self, recipe: str, done: int, known: int) -> None:
        """Show that a recipe is being made."""
        if self._task is not None:
            described = f"{recipe} ({done + 1} of {max(known, done + 1)})"
            self._bar.reset(self._task, total=None, description=described, what="")

    def progress(self, done: int, of: int, what: str) -> None:
        """Show the progress of a step."""
        if self._task is not None:
            self._bar.update(self._task, completed=done, total=of or None, what=what)

    def ended(self, attempt: Trial, verdict: Verdict) -> None:
        """Write a line on the outcome of a recipe."""
        self._bar.console.print(line_of(attempt, verdict, self._at_rows))


def line_of(attempt: Trial, verdict: Verdict, at_rows: int) -> Text:
    """Write a recipe's figures and verdict in one line."""
    line = Text(f"{attempt.recipe:<40} ", style="bold" if verdict.pays else "")
    if attempt.figures is not None:
        evaluation, measurement = attempt.figures
        ratio = measurement.at(at_rows).ratio
        line.append(f"{ratio.median:5.2f}x  " if ratio else "    -  ", style="not bold")
        line.append(f"{evaluation.metric} {evaluation.value:.4f}  ")
        line.append(f"{sized(measurement.candidate.file_bytes):>10}  ")
    reason = "; ".join([verdict.reason, *attempt.notes])
    return line.append(reason, style="green" if verdict.pays else "dim")


@contextmanager
def watched(at_rows: int) -> Iterator[Terminal]:
    """Show a search while the block runs."""
    terminal = Terminal(at_rows)
    with terminal.show():
        yield terminal
