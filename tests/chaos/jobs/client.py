"""A client process: starts one job after the other and waits for its end; may be killed, and goes on where it was.

`python -m tests.chaos.jobs.client INDEX CLIENTS SEED FOLDER`. Ends when standard input says `enough`, after the job
that it waits for. Jobs are written down in `FOLDER/jobs-INDEX` when they have ended: number, id, state.
"""

from __future__ import annotations

import os
import random
import signal
import sys
import threading
import time
from pathlib import Path
from typing import Final

from tests.chaos.jobs.inputs import OUTPUTS, ROWS_PER_S, Wanted, make_input, output_of

from headrace.contracts import BrokerUnavailable, HeadraceError, StoreUnavailable, UnknownModel
from headrace.contracts.jobs import STORE
from headrace.producers import Client, ScoreOptions
from headrace.producers.jobs.errors import JobCancelled
from headrace.producers.jobs.job import Job
from headrace.results_store.jobs.control import WrongState

#: What people do with jobs while they run; most are left alone.
WAYS: Final = ("", "", "", "pause", "cancel", "retry", "restart")

#: Between two things that are done with a job.
MEDDLE_S: Final = 0.7

#: Between two attempts while a server is away.
RETRY_S: Final = 0.2


def main(index: int, clients: int, seed: int, folder: Path) -> None:
    """Run jobs until it is enough."""
    enough = threading.Event()
    threading.Thread(target=_obey, args=(enough,), daemon=True).start()
    journal = folder / f"jobs-{index}"
    number = len(journal.read_text().splitlines()) if journal.exists() else 0
    with Client() as client:
        while not enough.is_set() or number == 0:
            identity, state = run_job(client, folder, seed, index + number * clients)
            with journal.open("a") as file:
                file.write(f"{index + number * clients} {identity} {state}\n")
            number += 1


def run_job(client: Client, folder: Path, seed: int, number: int) -> tuple[str, str]:
    """Start a job, or attach to it, and wait for its end; return its id and state."""
    wanted = make_input(folder, seed, number)
    output = output_of(folder, os.environ.get(OUTPUTS, ""), number)
    way = random.Random(f"{seed}/{number}/way").choice(WAYS)
    while True:
        try:
            options = options_of(wanted, output)
            job = client.score(wanted.model, wanted.source, output, **options)
            if way == "restart":
                time.sleep(MEDDLE_S)
                options["restart"] = True
                job = client.score(wanted.model, wanted.source, output, **options)
                way = ""
            if way in {"pause", "cancel"}:
                way = meddle(job, way)
            state = job.wait().job.state
            if way == "retry":
                way = ""
                job.retry()
                state = job.wait().job.state
        except (BrokerUnavailable, StoreUnavailable, UnknownModel) as exc:
            print(f"job {number}: {exc}", file=sys.stderr, flush=True)
            time.sleep(RETRY_S)
        except JobCancelled:
            way = ""  # the same call goes on with it
        except WrongState as exc:  # such as a restart while the job is being finished
            print(f"job {number}: {exc}", file=sys.stderr, flush=True)
            time.sleep(RETRY_S)
        except HeadraceError as exc:
            print(f"job {number} ended: {type(exc).__name__}: {exc}", file=sys.stderr, flush=True)
            return job.id, f"{type(exc).__name__}"
        else:
            return job.id, state


def options_of(wanted: Wanted, output: str) -> ScoreOptions:
    """Return how a job is scored."""
    options = ScoreOptions(max_rows_per_s=ROWS_PER_S)
    if output != STORE:
        options |= ScoreOptions(keep=wanted.keep, format=wanted.output_format)
    return options


def meddle(job: Job, way: str) -> str:
    """Pause a job and let it go on, or cancel it; return what is still to be done."""
    time.sleep(MEDDLE_S)
    try:
        if way == "pause":
            job.pause()
            time.sleep(MEDDLE_S)
            job.resume()
        else:
            job.cancel()
    except (BrokerUnavailable, StoreUnavailable):
        raise
    except HeadraceError:  # it has ended by now
        return ""
    return ""


def _obey(enough: threading.Event) -> None:
    for _ in sys.stdin:
        enough.set()
    os.kill(os.getpid(), signal.SIGKILL)


if __name__ == "__main__":
    main(int(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3]), Path(sys.argv[4]))
