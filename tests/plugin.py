"""Runtimes of tests as entry points, which workers find on their PYTHONPATH."""

from __future__ import annotations

import inspect
import shutil
from pathlib import Path


def write_plugin(folder: Path, runtime: type) -> Path:
    """Copy the module of a runtime into a folder for PYTHONPATH, and name it there as an entry point.

    The module is `NAME_runtime.py`, and NAME is what packages call the runtime. Return the folder.
    """
    source = Path(inspect.getfile(runtime))
    name = source.stem.removesuffix("_runtime")
    info = folder / f"{name}-1.dist-info"
    info.mkdir(parents=True)
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: 1\n")
    (info / "entry_points.txt").write_text(f"[headrace.runtimes]\n{name} = {source.stem}:{runtime.__name__}\n")
    shutil.copy(source, folder)
    return folder
