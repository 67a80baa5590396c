"""HTML and SVG in which everything is escaped that isn't markup: names in a report come from users."""

from __future__ import annotations

import html
import re
from typing import Final, TypeAlias

#: Neither HTML nor XML allows these, not even as references.
_CONTROL: Final = re.compile(r"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f\ud800-\udfff\ufffe\uffff]")

_VOID: Final = {"meta", "img", "br", "hr"}


class Markup(str):
    """Text that is markup already, and only ever made by `element` and `join`."""

    __slots__ = ()


Content: TypeAlias = "Markup | str | float | int | None"


def element(name: str, /, *content: Content, **attributes: Content) -> Markup:
    """Make an element.

    content: markup as it is, all else escaped, None left out. attributes: None leaves one out; `class_` is `class`,
    and `_` within a name is `-`.
    """
    pairs = [
        f' {key.rstrip("_").replace("_", "-")}="{escaped(value)}"'
        for key, value in attributes.items()
        if value is not None
    ]
    start = f"<{name}{''.join(pairs)}>"
    return Markup(start if name in _VOID else f"{start}{join(*content)}</{name}>")


def join(*content: Content) -> Markup:
    """Put pieces one after the other, escaping those that are no markup."""
    return Markup("".join(piece if isinstance(piece, Markup) else escaped(piece) for piece in content))


def escaped(value: Content) -> str:
    """Write a value so that it is nothing but text, also within quotes; numbers as short as a drawing needs them."""
    if value is None:
        return ""
    if isinstance(value, float):
        return f"{value:.2f}".rstrip("0").rstrip(".")
    return html.escape(_CONTROL.sub("\N{REPLACEMENT CHARACTER}", str(value)))


def table(headings: list[str], rows: list[list[Content]], *, numeric: frozenset[int] = frozenset()) -> Markup:
    """Make a table that scrolls by itself when it is too wide. numeric: columns that are set to the right."""
    side = dict.fromkeys(numeric, "number")
    head = element("tr", *(element("th", text, class_=side.get(at), scope="col") for at, text in enumerate(headings)))
    body = [element("tr", *(element("td", cell, class_=side.get(at)) for at, cell in enumerate(row))) for row in rows]
    return element("div", element("table", element("thead", head), element("tbody", *body)), class_="wide")
