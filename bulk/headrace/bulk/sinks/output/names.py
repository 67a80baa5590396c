"""Names in an output folder."""

from __future__ import annotations

import re
from typing import Final

from headrace.bulk.sinks.base import PartFormat
from headrace.results_store.jobs.records import Slice

#: The endings of parts.
ENDINGS: Final[dict[PartFormat, str]] = {"parquet": "parquet", "csv": "csv", "jsonl": "jsonl", "openai": "jsonl"}

SUCCESS: Final = "_SUCCESS"
MANIFEST: Final = "_manifest.json"

#: The folder of bad rows. Readers of data sets pass over what begins with an underscore.
ERRORS: Final = "_errors"

#: The folder of cards: what is known of a part and has no place in it. Removed when the job has succeeded.
CARDS: Final = "_parts"

_PART = re.compile(r"part-\d{6,}-\d{12,}(-r\d+)?\.(parquet|csv|jsonl)")


def part_name(part: Slice, kind: PartFormat, retry: int = 0) -> str:
    """Return the name of the part of a slice; names sort in the order of the input. retry: of `headrace jobs retry`."""
    again = f"-r{retry}" if retry else ""
    return f"part-{part.file_no:06}-{part.row_start:012}{again}.{ENDINGS[kind]}"


def is_part(name: str) -> bool:
    """Return whether a name is one that a part could have."""
    return _PART.fullmatch(name) is not None


def below(folder: str, name: str) -> str:
    """Return the URI of a name in a folder."""
    return f"{folder.rstrip('/')}/{name}"
