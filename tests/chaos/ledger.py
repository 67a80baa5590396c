"""What a client writes down: each accepted request before it goes on, and each answer that its handle gave.

Lines, appended by one `write` each time, so that they outlive the client. Two files a client:
`accepted-N`: `ID EXPECTATION X`; `answered-N`: `ID ANSWER`, where ANSWER is the value or the name of an error.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from enum import StrEnum
from pathlib import Path
from types import TracebackType
from typing import NamedTuple, Self


class Expect(StrEnum):
    """How a request may end. MAYBE_*: with its value, or as said. DURABLE: with its value, whatever the broker loses.

    REFUSED: as an error, since Postgres takes no row that holds what the client chose, or none at all. UNREAD: with its
    value, which nobody asked for.
    """

    VALUE = "value"
    FAILURE = "failure"
    MAYBE_CANCELLED = "maybe_cancelled"
    MAYBE_EXPIRED = "maybe_expired"
    REFUSED = "refused"
    UNREAD = "unread"
    DURABLE = "durable"
    MAYBE_LOST = "maybe_lost"


class Accepted(NamedTuple):
    """A request for which `submit` returned."""

    id: str
    expect: Expect
    x: int


class Journal:
    """An append-only file of lines."""

    def __init__(self, path: Path) -> None:
        self._file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)

    def add(self, lines: Iterable[str]) -> None:
        """Append lines; when this returns they outlive the process."""
        text = "".join(f"{line}\n" for line in lines).encode()
        while text:
            text = text[os.write(self._file, text) :]

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        os.close(self._file)


def read_accepted(folder: Path) -> Iterator[Accepted]:
    """Read what all clients had accepted."""
    for line in _lines(folder, "accepted-*"):
        request_id, expect, x = line.split(" ")
        yield Accepted(request_id, Expect(expect), int(x))


def read_answered(folder: Path) -> Iterator[tuple[str, str]]:
    """Read what all handles gave: id and answer."""
    for line in _lines(folder, "answered-*"):
        request_id, _, answer = line.partition(" ")
        yield request_id, answer


def read_told(folder: Path) -> Iterator[tuple[str, str, float]]:
    """Read what handles gave where the broker lost data: id, answer, and when, in seconds since 1970."""
    for line in _lines(folder, "told-*"):
        request_id, answer, at = line.rsplit(" ", 2)
        yield request_id, answer, float(at)


def read_tasks(folder: Path) -> tuple[set[int], set[int]]:
    """Read the numbers of the ordinary tasks: those that were sent, and those that ran."""
    return {int(line) for line in _lines(folder, "sent")}, {int(line) for line in _lines(folder, "ran-*")}


def _lines(folder: Path, pattern: str) -> Iterator[str]:
    for path in sorted(folder.glob(pattern)):
        with path.open() as file:
            for line in file:
                yield line.rstrip("\n")
