"""Fuzzing without coverage: well-formed inputs, and what came of them, mutated at random. Needs nothing installed."""

from __future__ import annotations

import random
import signal
import sys
from collections import deque
from pathlib import Path
from typing import Final

from tests.fuzz.limits import INPUT_S, limit_memory
from tests.fuzz.mutation import Mutator, pick
from tests.fuzz.targets import TARGETS, Target

#: The last mutated inputs, from which others are made as well as from the seeds.
_POOL: Final = 200


class TooSlow(BaseException):
    """One input took more processor time than INPUT_S."""


class Finding(Exception):
    """An input that broke a promise."""

    def __init__(self, number: int, data: bytes) -> None:
        super().__init__(f"input {number} broke a promise: {data[:500]!r}")
        self.data = data


def fuzz(target: Target, inputs: int, seed: int) -> None:
    """Run the target on its seeds and on `inputs` mutations. Raises Finding at the first broken promise."""
    numbers = random.Random(seed)
    mutator = Mutator(numbers)
    recent: deque[bytes] = deque(maxlen=_POOL)
    for data in target.seeds:
        _run(target, data, 0)
    for number in range(1, inputs + 1):
        start = pick(numbers, recent if recent and numbers.random() < 0.4 else target.seeds)
        data = mutator.mutate(start, target.form, pick(numbers, target.seeds))
        recent.append(data)
        _run(target, data, number)


def _run(target: Target, data: bytes, number: int) -> None:
    previous = signal.signal(signal.SIGPROF, _stop)
    signal.setitimer(signal.ITIMER_PROF, INPUT_S)
    try:
        target.run(data)
    except (Exception, TooSlow) as exc:
        raise Finding(number, data) from exc
    finally:
        signal.setitimer(signal.ITIMER_PROF, 0)
        signal.signal(signal.SIGPROF, previous)


def _stop(*_: object) -> None:
    raise TooSlow


def main() -> None:
    """Take the words of `run.py`."""
    name, inputs, seed, folder = sys.argv[1:]
    limit_memory()
    try:
        fuzz(TARGETS[name], int(inputs), int(seed))
    except Finding as found:
        Path(folder, f"{name}-found").write_bytes(found.data)
        raise
    print(f"ran {inputs} inputs")


if __name__ == "__main__":
    main()
