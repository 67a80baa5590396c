"""One request at a time through plain Celery and through headrace: the same model, rows, Valkey and machine.

    python benchmarks/online.py            # up to twelve minutes; prints a table
    python benchmarks/online.py --quick    # up to three minutes
    python benchmarks/online.py --json     # one JSON object on standard output

docs/benchmarks.md says what is measured, and how.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
from typing import Any

from online_parts import compute, drain, latency, live, memory, report
from online_parts.bench import Bench, say
from online_parts.models import write_models
from online_parts.plan import FULL, QUICK, TINY, Plan
from online_parts.servers import started
from online_parts.sweep import sweep_celery, sweep_headrace

SECTIONS = {
    "drain": drain.run,
    "live": live.run,
    "latency": latency.run,
    "compute": compute.run,
    "memory": memory.run,
}

#: Sections in which plain Celery runs too, and those in which headrace's configuration is chosen, by a sweep.
WITH_RIVAL = {"drain", "live", "latency"}
WITH_OUR_BEST = {"drain", "live"}


def parse(arguments: list[str] | None = None) -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    parser.add_argument("--json", action="store_true", help="print one JSON object instead of the table")
    size = parser.add_mutually_exclusive_group()
    size.add_argument("--quick", action="store_const", const=QUICK, dest="plan", help="up to three minutes")
    size.add_argument("--tiny", action="store_const", const=TINY, dest="plan", help="only see that it runs")
    parser.add_argument("--only", action="append", choices=SECTIONS, help="run this section (may be repeated)")
    parser.add_argument("--memory-requests", type=int, metavar="N", help="requests of the memory section")
    parser.set_defaults(plan=FULL)
    return parser.parse_args(arguments)


def measure(plan: Plan, names: list[str]) -> dict[str, Any]:
    """Run the sections named, on servers of their own."""
    from headrace.results_store import migrate

    found: dict[str, Any] = {}
    with started() as servers:
        write_models(servers.folder)
        migrate(servers.database_url)
        bench = Bench(servers, servers.folder, plan)
        try:
            if WITH_RIVAL & set(names):
                say("sweep: the best configurations")
                found["sweep"] = {"celery": sweep_celery(bench)}
            if WITH_OUR_BEST & set(names):
                found["sweep"]["headrace"] = sweep_headrace(bench)
            for name in names:
                say(name)
                found[name] = SECTIONS[name](bench)
        finally:
            bench.close()
    return found


def main() -> None:
    """Measure and print."""
    options = parse()
    plan = options.plan
    if options.memory_requests:
        plan = dataclasses.replace(plan, memory_requests=options.memory_requests)
    about = report.machine()
    result = report.compose(measure(plan, options.only or list(SECTIONS)), about)
    print(json.dumps(result, indent=2) if options.json else report.table(result))


if __name__ == "__main__":
    main()
