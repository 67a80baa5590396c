"""Requests of single rows to a model server, straight and through headrace: `make test-servers` makes the servers.

python -m benchmarks.serving                              (from the root of the repository; about ten minutes)
python -m benchmarks.serving --only triton --rounds 5 --json

docs/benchmarks.md says what is measured, and how.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from pathlib import Path
from typing import Any

from benchmarks.bulk_parts.report import machine
from benchmarks.bulk_parts.stage import staged
from benchmarks.serving_parts import contest, report


def parse(arguments: list[str] | None = None) -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add = parser.add_argument
    servers = list(contest.RUNTIMES)
    add("--only", action="append", choices=servers, help="a server; may be repeated")
    add("--json", action="store_true", help="print one JSON object instead of the table")
    add("--save", type=Path, metavar="FILE", help="write the JSON object there, too")
    add("--protocol", choices=["grpc", "http"], default="grpc", help="of the server (default grpc)")
    add("--rounds", type=int, default=3, metavar="N", help="rounds; medians count (default 3)")
    add("--seconds", type=float, default=3.0, metavar="S", help="seconds of a figure (default 3)")
    add(
        "--requests", type=int, default=10_000, metavar="N", help="requests that are submitted together (default 10000)"
    )
    add("--heavy-requests", type=int, default=6_000, metavar="N", help="the same for `heavy` and `deep`")
    add("--batch-rows", type=int, default=64, metavar="N", help="rows of a full batch (default 64)")
    add("--own-core", action="store_true", help="leave the server a core to itself, for all figures")
    add("--in-flight", type=int, nargs="+", default=[1, 2, 4], help="full batches at a time; the best counts")
    add("--callers", type=int, nargs="+", default=[16, 64], help="callers of single rows; the best counts")
    add("--idle", type=int, default=300, metavar="N", help="calls of an idle p50 (default 300)")
    return parser.parse_args(arguments)


def main() -> None:
    """Measure and print."""
    options = parse()
    found: dict[str, Any] = {"machine": machine()}
    with tempfile.TemporaryDirectory(prefix="headrace-serving-") as folder, staged(Path(folder)) as stage:
        for name in options.only or contest.RUNTIMES:
            print(name, file=sys.stderr, flush=True)
            found[name] = contest.run(stage, name, options)
    print(json.dumps(found, indent=2) if options.json else report.table(found))
    if options.save:
        options.save.write_text(json.dumps(found, indent=2) + "\n", "utf-8")


if __name__ == "__main__":
    main()
