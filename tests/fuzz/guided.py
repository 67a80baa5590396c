"""Fuzzing by coverage: atheris notes which branches of headrace an input reaches, and mutates those further."""

from __future__ import annotations

import atexit
import random
import signal
import sys
from pathlib import Path

import atheris

with atheris.instrument_imports(include=["headrace"]):
    from tests.fuzz.targets import TARGETS

from tests.fuzz.limits import INPUT_S, MEMORY_BYTES, limit_memory
from tests.fuzz.mutation import MAX_BYTES, Mutator, pick


def main() -> None:
    """Take the words of `run.py`; ends the process."""
    name, inputs, seed, folder = sys.argv[1:]
    target = TARGETS[name]
    corpus = Path(folder, f"{name}-corpus")
    corpus.mkdir(exist_ok=True)
    for number, data in enumerate(target.seeds):
        (corpus / f"seed-{number}").write_bytes(data)

    def mutate(data: bytes, most_bytes: int, number: int) -> bytes:
        numbers = random.Random(number)
        if numbers.random() < 0.2:
            return bytes(atheris.Mutate(data, most_bytes))
        return Mutator(numbers).mutate(data, target.form, pick(numbers, target.seeds))[:most_bytes]

    words = [
        sys.argv[0],
        f"-atheris_runs={inputs}",
        f"-seed={seed}",
        f"-max_len={MAX_BYTES}",
        f"-timeout={INPUT_S}",
        f"-rss_limit_mb={MEMORY_BYTES >> 20}",
        f"-artifact_prefix={folder}/{name}-",
        str(corpus),
    ]
    limit_memory()
    # The fuzzer's clock ticks on while Python ends, when nobody handles its signal any more.
    atexit.register(signal.setitimer, signal.ITIMER_REAL, 0)
    atheris.Setup(words, target.run, custom_mutator=mutate)
    atheris.Fuzz()


if __name__ == "__main__":
    main()
