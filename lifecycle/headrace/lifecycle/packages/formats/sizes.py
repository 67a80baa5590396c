"""Conversion of a file's dimension sizes to declared ones: numbers, names, or None for nameless sizes that vary."""

from __future__ import annotations

import re
from typing import Final

#: Names that converters give to every size that they don't know; sizes of one such name needn't be equal.
_NO_NAMES: Final = frozenset({"none", "unk", "unknown", "dynamic", "any", "null"})

#: Words, apart from one another by blanks. What else stands there is an expression, such as floor(height/2).
_NAME: Final = re.compile(r"(?=.{1,60}$)[A-Za-z_][\w.:]*(?:[ -][A-Za-z_][\w.:]*)*")

#: Sums that decoders declare, such as `past + 2*length`; the trial computes them.
_SUM: Final = re.compile(r"(?=.{1,60}$)(?:\d+ ?\* ?)?[A-Za-z_][\w.:]*(?: ?\+ ?(?:(?:\d+ ?\* ?)?[A-Za-z_][\w.:]*|\d+))*")


def declared_size(size: int | str | None) -> int | str | None:
    """Return one size of a shape as a declaration has it."""
    if isinstance(size, int):
        return None if size < 0 else size
    if size is None or size.lower() in _NO_NAMES or not (_NAME.fullmatch(size) or _SUM.fullmatch(size)):
        return None
    return size
