"""Rows of CSV: a newline ends one unless it is inside quotes. Pure.

A quote counts at the beginning of a field only, as in pyarrow and in Python's csv module; anywhere else it is text.
"""

from __future__ import annotations

import csv
from functools import partial
from typing import Final

import msgspec
import numpy as np
from numpy.typing import NDArray

from headrace.bulk.sources.text.pieces import Split, Splitter, split_lines

#: Separators of fields that are told by the header; the first wins a tie.
DELIMITERS: Final = (",", ";", "\t", "|")

_NEWLINE: Final = 10
_QUOTE: Final = 34


class Header(msgspec.Struct, frozen=True):
    """The header of a CSV file. size: bytes before the first row; line: where that begins."""

    names: tuple[str, ...]
    delimiter: str
    size: int
    line: int


def splitter(delimiter: str) -> Splitter:
    """Return what finds rows of fields that a delimiter separates."""
    return partial(split_rows, delimiter=ord(delimiter))


def split_rows(data: bytes, delimiter: int) -> Split:
    """Find rows in bytes that begin with one."""
    if b'"' not in data:
        return split_lines(data)
    octets = np.frombuffer(data, np.uint8)
    newlines = np.flatnonzero(octets == _NEWLINE)
    quotes = np.flatnonzero(octets == _QUOTE)
    if not _are_paired(octets, quotes, delimiter):
        quotes = _real_quotes(data, quotes, delimiter)
    outside = newlines[np.searchsorted(quotes, newlines) % 2 == 0]
    return Split(outside + 1, newlines, len(quotes) % 2 == 1)


def _are_paired(octets: NDArray[np.uint8], quotes: NDArray[np.int64], delimiter: int) -> bool:
    """Return whether every other quote opens a field: it follows a delimiter, a newline, or the quote before it."""
    opening = quotes[0::2]
    before = octets[opening - 1]  # of the first byte: the last, which is put right below
    fine = (before == delimiter) | (before == _NEWLINE) | (before == _QUOTE)
    if opening[0] == 0:
        fine[0] = True
    return bool(fine.all())


def _real_quotes(data: bytes, quotes: NDArray[np.int64], delimiter: int) -> NDArray[np.int64]:
    """Return the quotes that open and close fields, in turn. Slower, for text with quotes inside of fields."""
    real: list[int] = []
    places = quotes.tolist()
    before_field = (delimiter, _NEWLINE)
    at = 0
    while at < len(places):
        place = places[at]
        if len(real) % 2 == 0:
            if place == 0 or data[place - 1] in before_field:
                real.append(place)
        elif at + 1 < len(places) and places[at + 1] == place + 1:
            at += 1  # a doubled quote stands for one in the text
        else:
            real.append(place)
        at += 1
    return np.array(real, np.int64)


def parse_header(data: bytes, delimiter: str, *, last: bool) -> Header | None:
    """Read the first line that isn't blank. None: it is not complete yet, or there is none.

    delimiter: "" is the one that the line has most of. Raises UnicodeDecodeError and csv.Error.
    """
    start = 3 if data.startswith(b"\xef\xbb\xbf") else 0
    begin = start + len(data[start:]) - len(data[start:].lstrip(b"\r\n"))
    end = begin - 1
    while True:
        end = data.find(b"\n", end + 1)
        if end < 0 or data.count(b'"', begin, end) % 2 == 0:
            break
    if end < 0 and not last:
        return None
    stop = end + 1 if end >= 0 else len(data)
    text = data[begin:stop].decode().rstrip("\r\n")
    if not text:
        return None
    found = delimiter or max(DELIMITERS, key=_outside_quotes(text).count)
    (names,) = csv.reader([text], delimiter=found)
    return Header(tuple(names), found, stop, 1 + data.count(b"\n", 0, stop))


def _outside_quotes(text: str) -> str:
    return "".join(text.split('"')[0::2])
