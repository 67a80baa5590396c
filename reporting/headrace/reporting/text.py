"""Text of a report: cleaned of what HTML forbids, measured and shortened for a drawing."""

from __future__ import annotations

import re
import unicodedata
from typing import Any, Final

#: Neither HTML nor XML allows these, not even as references.
_FORBIDDEN: Final = re.compile(r"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f\ud800-\udfff\ufffe\uffff]")

#: Width of a letter at the font size of charts; wide enough for most fonts, so that labels don't overlap. Letters of
#: Chinese, Japanese and Korean are as wide as high.
LETTER: Final = 7.2
_WIDE_LETTER: Final = 13.0

#: Letters of a name in a chart; longer ones are shortened.
NAME_LETTERS: Final = 40


def cleaned(value: Any) -> Any:
    """Replace the characters of a text that neither HTML nor XML can hold; other values are returned as they are."""
    if isinstance(value, str) and _FORBIDDEN.search(value):
        return type(value)(_FORBIDDEN.sub("\N{REPLACEMENT CHARACTER}", value))
    return value


def width_of(text: str) -> float:
    """Return the greatest width of a text in a chart."""
    wide = sum(unicodedata.east_asian_width(letter) in "WF" for letter in text)
    return (len(text) - wide) * LETTER + wide * _WIDE_LETTER


def shortened(name: str, room: float = NAME_LETTERS * LETTER) -> str:
    """Shorten a name to a width; its end distinguishes it better than its beginning."""
    if width_of(name) <= room:
        return name
    while name and width_of(f"…{name}") > room:
        name = name[1:]
    return f"…{name}"
