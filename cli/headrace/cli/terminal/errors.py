"""The errors that only the command line and the local stack can meet.

HeadraceError
├── StackError
├── NoSuchLetter
└── MissingExtra
"""

from __future__ import annotations

from headrace.contracts.errors import HeadraceError


class StackError(HeadraceError):
    """The local stack can't run; the logs in its home, under `logs/`, have the cause."""

    def __init__(self, message: str | None = None, *, log_lines: str = "") -> None:
        """log_lines: the end of a part's log, shown below the message."""
        super().__init__(message)
        self.log_lines = log_lines


class NoSuchLetter(HeadraceError):
    """There is no dead letter of this id; `headrace dead list` shows them."""


class MissingExtra(HeadraceError):
    """A part of headrace that this command needs is not installed; `pip install "headrace[worker,local]"` adds all."""
