"""Fuzz what reads bytes from outside: `python -m tests.fuzz.run --inputs 1000000 --seed 1`.

Under atheris (`make fuzz` installs it into an environment of its own) coverage decides which inputs are mutated
further; without it, the same mutations start from well-formed inputs and the last mutated ones. Each target runs in a
process of its own with limited memory; an input that takes too long, or breaks a promise, ends it and is kept.
"""

from __future__ import annotations

import argparse
import os
import re
import subprocess
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from importlib.util import find_spec
from pathlib import Path
from typing import Final

from tests.fuzz.targets import TARGETS

#: What runs one target: a module that takes its name, the number of inputs, the seed and a folder.
ENGINES: Final = {"atheris": "tests.fuzz.guided", "mutation": "tests.fuzz.blind"}

#: How the engines say how many inputs they ran.
_RAN: Final = re.compile(r"^(?:Done|ran|#)\s?(\d+)", re.MULTILINE)


def main() -> int:
    """Fuzz all targets, or one; gives the exit code, 1 when a promise was broken."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--inputs", type=int, default=1_000_000, help="inputs in all (1000000)")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--target", choices=TARGETS, help="only this one")
    parser.add_argument("--engine", choices=ENGINES, default="atheris" if find_spec("atheris") else "mutation")
    parser.add_argument("--folder", type=Path, help="where logs, and inputs that break a promise, are kept")
    options = parser.parse_args()
    folder = options.folder or Path(tempfile.mkdtemp(prefix="headrace-fuzz-"))
    folder.mkdir(parents=True, exist_ok=True)
    print(f"fuzzing with {options.engine}, seed {options.seed}; logs and findings go to {folder}", flush=True)
    names = [options.target] if options.target else list(TARGETS)
    parts = sum(TARGETS[name].share for name in names)
    runs = [Run(name, -(-options.inputs * TARGETS[name].share // parts), options, folder) for name in names]
    started = time.monotonic()
    with ThreadPoolExecutor(os.cpu_count()) as threads:
        list(threads.map(Run.finish, runs))
    total, broken = sum(run.ran for run in runs), [run.name for run in runs if run.code]
    print(f"{total:,} inputs in {time.monotonic() - started:.0f} s; promises broken in: {', '.join(broken) or 'none'}")
    return 1 if broken or total < options.inputs else 0


class Run:
    """One target in a process of its own."""

    def __init__(self, name: str, inputs: int, options: argparse.Namespace, folder: Path) -> None:
        self.name = name
        self.ran = 0
        self.code = -1
        self._log = folder / f"{name}.log"
        self._command = [
            sys.executable,
            "-m",
            ENGINES[options.engine],
            name,
            str(inputs),
            str(options.seed),
            str(folder),
        ]

    def finish(self) -> None:
        """Run to the end and print how it went."""
        started = time.monotonic()
        with self._log.open("w") as file:
            self.code = subprocess.run(self._command, stdout=file, stderr=subprocess.STDOUT, check=False).returncode
        text = self._log.read_text(errors="replace")
        self.ran = max((int(found) for found in _RAN.findall(text)), default=0)
        verdict = "kept every promise" if self.code == 0 else f"exit code {self.code}, see {self._log}"
        print(f"  {self.name:10}{self.ran:9,} inputs {time.monotonic() - started:6.1f} s  {verdict}", flush=True)


if __name__ == "__main__":
    sys.exit(main())
