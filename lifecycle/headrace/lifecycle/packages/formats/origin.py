"""Origin of a package's file, recorded in its manifest."""

from __future__ import annotations

import datetime as dt
from pathlib import Path
from typing import Any, Final

#: Recorded of a file that keeps something from one run to the next: requests of different callers must not share it.
FORGETS: Final = {"state": "the file keeps a state between runs; here each run starts anew"}


def origin_of(source: Path) -> dict[str, Any]:
    """Return the origin that is recorded of every added file."""
    return {"source": source.name, "added_at": dt.datetime.now(dt.UTC).isoformat(timespec="seconds")}
