"""The parts that the ledger names, against the objects of the output folder."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from itertools import groupby
from typing import Final

from headrace.bulk.sinks.base import OutputDamaged
from headrace.bulk.storage.base import ObjectInfo
from headrace.results_store.jobs.records import Part

#: A name up to what tells attempts of `headrace jobs retry` apart.
_STEM: Final = re.compile(r"part-\d+-\d+")


def verified(parts: Iterable[Part], objects: Iterable[tuple[str, ObjectInfo]]) -> Iterator[Part | ObjectInfo]:
    """Yield each part that is in the folder as it was published, and each object that is no part of the ledger.

    parts: with names, in the order of their slices. objects: in the order of their names. Both are read once. Raises
    OutputDamaged for a part that is gone or is another one by now.
    """
    found = groupby(objects, key=lambda named: _stem(named[0]))
    stem, group = next(found, (None, iter(())))
    last = ""
    for wanted, attempts in groupby(parts, key=lambda part: _stem(part.name)):
        if wanted <= last:
            raise ValueError(f"parts out of order: {wanted} after {last}")
        last = wanted
        while stem is not None and stem < wanted:
            yield from (info for _, info in group)
            stem, group = next(found, (None, iter(())))
        there = dict(group) if stem == wanted else {}
        for part in attempts:
            yield _checked(part, there.pop(part.name, None))
        yield from there.values()
        if stem == wanted:
            stem, group = next(found, (None, iter(())))
    while stem is not None:
        yield from (info for _, info in group)
        stem, group = next(found, (None, iter(())))


def _checked(part: Part, info: ObjectInfo | None) -> Part:
    if info is None:
        raise OutputDamaged(f"the part {part.name} is gone from the output; --restart scores the input again")
    if (info.etag, info.size) != (part.etag, part.bytes):
        raise OutputDamaged(f"{info.uri} was changed after it was published; --restart scores the input again")
    return part


def _stem(name: str) -> str:
    match = _STEM.match(name)
    return match[0] if match else name
