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

from benchmarks.bulk_parts import beside, digits, engines, growth, pictures, report, resuming, scaling, sentences
from benchmarks.bulk_parts.stage import staged

PARTS = {
    "a": digits.run,
    "b": sentences.run,
    "c": pictures.run,
    "d": scaling.run,
    "e": beside.run,
    "f": engines.run,
    "g": resuming.run,
    "m": growth.run,
}


#: Sizes: option, default, meaning.
SIZES = (
    ("rounds", 5, "rounds of parts a, b, c, e and f"),
    ("digits-copies", 1000, "copies of 1,797 digits in parts a and f"),
    ("digits-batch-rows", 64, "rows of a batch of them"),
    ("sentences", 20_000, "sentences in parts b and f"),
    ("sentences-batch-rows", 32, "rows of a batch of them"),
    ("images", 10_000, "JPEG files in part c"),
    ("images-batch-rows", 32, "rows of a batch of them"),
    ("scaling-rows", 180_000, "rows of part d, four minutes of one process"),
    ("beside-images", 20_000, "JPEG files of the job of part e"),
    ("resume-rows", 400_000, "rows of 1 kB in part g"),
    ("growth-copies", 100, "copies of 1,797 digits in the smallest job of part m"),
    ("tiny-files", 100_000, "files of the largest job of part m"),
    ("warm-up-rows", 2_000, "rows of a worker's first job, which is not measured"),
)


def parse(arguments: list[str] | None = None) -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add = parser.add_argument
    add("--only", action="append", choices=list(PARTS), help="a part; may be repeated")
    add("--json", action="store_true", help="print one JSON object instead of the table")
    add("--save", type=Path, metavar="FILE", help="write the JSON object there, too")
    add("--data", type=Path, default=Path(".headrace/bulk-benchmark"), help="inputs, kept between runs")
    add("--threads", type=int, nargs="+", default=[1], help="of the model, in parts a, b, c and f (default 1)")
    for name, size, meaning in SIZES:
        add(f"--{name}", type=int, default=size, metavar="N", help=f"{meaning} (default {size})")
    add("--image-paths", action="store_true", help="part c: name the files in a column of paths, not by their folder")
    add("--scaling", type=int, nargs="+", default=[1, 2, 4, 8], help="worker processes of part d (default 1 2 4 8)")
    add("--online-rate", type=float, default=20.0, help="requests a second of part e (default 20)")
    add("--online-s", type=float, default=30.0, help="seconds of requests of part e (default 30)")
    add("--policy", action="append", metavar="NAME[:VARIABLE=VALUE,...]", help="workers' settings to compare in part e")
    add("--engines", nargs="+", choices=list(engines.ENGINES), default=list(engines.ENGINES), help="of part f")
    add("--rival-loops", nargs="+", choices=list(engines.LOOPS), default=list(engines.LOOPS), help="of part f")
    add("--rivals", type=Path, default=Path(".venv-engines"), help="environment of part f (default .venv-engines)")
    add("--resume-at", type=float, nargs="+", default=[0.5], help="shares of the rows, in part g (default 0.5)")
    add("--worker-env", action="append", default=[], metavar="NAME=VALUE", help="a setting of all workers")
    options = parser.parse_args(arguments)
    options.data, options.rivals = options.data.absolute(), options.rivals.absolute()
    options.policy = dict(map(policy_of, options.policy or ["default"]))
    options.worker_env = dict(each.split("=", 1) for each in options.worker_env)
    return options


def policy_of(text: str) -> tuple[str, dict[str, str]]:
    """Return name and settings of a policy."""
    name, _, settings = text.partition(":")
    return name, dict(each.split("=", 1) for each in settings.split(",") if each)


def main() -> None:
    """Measure and print."""
    options = parse()
    found: dict[str, Any] = {"machine": report.machine()}
    for name in options.only or PARTS:
        print(name, file=sys.stderr, flush=True)
        with staged(options.data) as stage:
            found[name] = PARTS[name](stage, options)
    print(json.dumps(found, indent=2) if options.json else report.table(found))
    if options.save:
        options.save.write_text(json.dumps(found, indent=2) + "\n", "utf-8")


if __name__ == "__main__":
    main()
