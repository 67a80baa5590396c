"""A search in a process of its own, for a test to kill: `python -m … FOLDER RECIPE…`."""

from __future__ import annotations

import sys
from pathlib import Path

from tests.compression.slow_model import quick_goal, slow_model_source, with_stubs

from headrace.compression.recipes import catalog
from headrace.compression.search.search import Search

if __name__ == "__main__":
    folder, *names = sys.argv[1:]
    catalog.BLOCKS = with_stubs()  # type: ignore[misc]
    source, data = slow_model_source(Path(folder))
    Search(source, data, quick_goal(source, data), Path(folder)).try_recipes(names)
