"""Offline scoring: headrace against bare loops and other engines, on the same input, threads and machine.

python -m benchmarks.bulk                              (from the root of the repository; about an hour)
python -m benchmarks.bulk --only a --rounds 5 --json

docs/benchmarks.md says what is measured, and how.
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from typing import Any

from benchmarks.bulk_parts import digits, pictures, sentences
from benchmarks.bulk_parts.stage import staged

PARTS = {"a": digits.run, "b": sentences.run, "c": pictures.run}


def parse(arguments: list[str] | None = None) -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", action="append", choices=list(PARTS), help="may be repeated")
    parser.add_argument("--rounds", type=int, default=5, help="of each contest (default 5)")
    parser.add_argument("--threads", type=int, nargs="+", default=[1, 2], help="of the model (default 1 2)")
    parser.add_argument("--data", type=Path, default=Path(".headrace/bulk-benchmark"), help="inputs, kept between runs")
    parser.add_argument("--digits-copies", type=int, default=1000, help="of 1,797 rows (default 1000)")
    parser.add_argument("--digits-batch-rows", type=int, default=64, help="rows of a batch (default 64)")
    parser.add_argument("--sentences", type=int, default=20_000, help="how many (default 20000)")
    parser.add_argument("--sentences-batch-rows", type=int, default=32, help="rows of a batch (default 32)")
    parser.add_argument("--images", type=int, default=10_000, help="JPEG files (default 10000)")
    parser.add_argument("--images-batch-rows", type=int, default=32, help="rows of a batch (default 32)")
    parser.add_argument("--image-paths", action="store_true", help="name the files by a column of paths, not by folder")
    parser.add_argument("--warm-up-rows", type=int, default=2_000)
    parser.add_argument("--worker-env", action="append", default=[], metavar="NAME=VALUE", help="of headrace's workers")
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    options = parser.parse_args(arguments)
    options.data = options.data.absolute()
    options.worker_env = dict(each.split("=", 1) for each in options.worker_env)
    return options


def main() -> None:
    """Measure and print."""
    options = parse()
    found: dict[str, Any] = {}
    for name in options.only or PARTS:
        print(name, file=sys.stderr, flush=True)
        with staged(options.data) as stage:
            found[name] = PARTS[name](stage, options)
    print(json.dumps(found, indent=2))


if __name__ == "__main__":
    main()
