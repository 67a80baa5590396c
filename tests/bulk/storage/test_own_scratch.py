"""Scratch folders of processes: what one that was killed left behind goes, what others work with stays."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from headrace.bulk.storage.scratch import OwnScratch

LEFT = """
import os, sys
from pathlib import Path
from headrace.bulk.storage.scratch import OwnScratch
own = OwnScratch(Path(sys.argv[1]))
(own.folder / "part").write_bytes(b"rows")
print("ready", flush=True)
sys.stdin.read()
"""


def test_the_scratch_of_a_killed_process_is_removed_by_the_next_and_that_of_others_stays(tmp_path: Path) -> None:
    mine = OwnScratch(tmp_path)
    (mine.folder / "part").write_bytes(b"rows")
    command = [sys.executable, "-c", LEFT, str(tmp_path)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"ready\n"
        (theirs,) = [path for path in tmp_path.iterdir() if path != mine.folder]
        next_one = OwnScratch(tmp_path)
        assert (theirs / "part").exists()
        process.kill()
        process.wait()
    last = OwnScratch(tmp_path)
    assert sorted(tmp_path.iterdir()) == sorted([mine.folder, next_one.folder, last.folder])
    assert (mine.folder / "part").exists()
