"""Problems: why a model that workers serve gives no answers at present, as workers report it to people."""

from __future__ import annotations

import datetime as dt
from typing import Final

import msgspec

#: Characters of a report; servers' own words may be pages long.
_MOST_TEXT: Final = 400

#: The end of the year 9999 in seconds since 1970.
_LAST_SECOND: Final = 253_402_300_799


class Problem(msgspec.Struct, frozen=True):
    """A reason in one line, with what to do where that is known. since: seconds since 1970."""

    text: str
    since: float

    def __str__(self) -> str:
        """Return the line with its time, for a person."""
        # Of another machine, which may have written anything.
        at = dt.datetime.fromtimestamp(self.since, dt.UTC) if 0 <= self.since < _LAST_SECOND else None
        when = f" (since {at:%Y-%m-%d %H:%M:%S} UTC)" if at else ""
        return f"{in_one_line(self.text)}{when}"


def in_one_line(text: str) -> str:
    """Return a text without line breaks and control characters, cut to what a person reads."""
    line = " ".join("".join(each if each.isprintable() else " " for each in text).split())
    return line if len(line) <= _MOST_TEXT else f"{line[: _MOST_TEXT - 1]}…"
