"""How headrace bears bad times, in figures: silent connections, idle workers, unequal models, large outputs.

python -m benchmarks.resilience                        (from the root of the repository; about half an hour)
python -m benchmarks.resilience --only fairness --json
"""

from __future__ import annotations

import argparse
import json
import sys
from typing import Any

from benchmarks.resilience_parts import fairness, idle, memory, silence
from benchmarks.resilience_parts.stage import staged

PARTS = {"silence": silence, "idle": idle, "fairness": fairness, "memory": memory}


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", action="append", choices=list(PARTS), help="may be repeated")
    parser.add_argument("--rounds", type=int, default=3, help="of fairness (default 3)")
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    return parser.parse_args()


def table(name: str, found: Any, prefix: str = "") -> list[str]:
    """Lay out one line a figure."""
    lines = []
    for key, value in found.items():
        title = f"{prefix}{key}"
        if isinstance(value, dict):
            lines += table(name, value, f"{title}: ")
        else:
            shown = "never" if value is None else f"{value:,.2f}" if isinstance(value, float) else str(value)
            lines.append(f"{name:<10}{title:<64}{shown:>10}")
    return lines


def main() -> None:
    options = parse()
    found = {}
    for name in options.only or PARTS:
        print(name, file=sys.stderr, flush=True)
        with staged() as stage:
            found[name] = PARTS[name].run(stage, options)
    if options.json:
        print(json.dumps(found, indent=2))
    else:
        print("\n".join(line for name, figures in found.items() for line in table(name, figures)))


if __name__ == "__main__":
    main()
