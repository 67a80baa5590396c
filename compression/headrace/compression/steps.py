"""Recipes: named sequences of steps that make a model smaller or faster.

A step is a frozen value with its options. There are three kinds, in the order in which a recipe has them:

    NetworkStep    a torch network in, a torch network out (pruning, distillation, training for int8)
    ExportStep     a torch network in, a package out (ONNX, .pt2)
    PackageStep    a package in, a package out (int8, fp16, graph optimisation, conversion for another runtime)

Steps never modify their input.
"""

from __future__ import annotations

import dataclasses
import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol, TypeAlias, runtime_checkable

from headrace.compression.data.dataset import Splits
from headrace.contracts import ModelPackage

if TYPE_CHECKING:
    from headrace.compression.networks.network import Network

#: Called with (done, of, what) as a long step goes on; of 0 is unknown.
Progress: TypeAlias = Callable[[int, int, str], None]


def no_progress(_done: int, _of: int, _what: str) -> None:
    """Ignore the progress."""


@dataclass(frozen=True)
class StepContext:
    """The folder, data and options with which steps run.

    folder: of this trial alone; every step gets a subdirectory of its own (`step_dir`). data: rows for calibration,
    training and selection; never those of the final test. seed: of all that is random. threads: for running and
    training; the count at which the result will serve. progress: shown while a step takes its time.
    """

    folder: Path
    data: Splits
    seed: int = 0
    threads: int = 1
    progress: Progress = field(default=no_progress, compare=False)

    def step_dir(self, step: Step) -> Path:
        """Make the folder of one step; empty, also when an interrupted run left files there."""
        import shutil

        folder = self.folder / step_name(step)
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
        return folder


@runtime_checkable
class NetworkStep(Protocol):
    """A step from a torch network to a torch network."""

    def change(self, network: Network, context: StepContext) -> Network:
        """Return a changed copy.

        Raises NotApplicable when there is nothing in the network that it can change, DataError when it lacks data.
        """
        ...


@runtime_checkable
class ExportStep(Protocol):
    """A step from a torch network to a package."""

    def export(self, network: Network, context: StepContext) -> ModelPackage:
        """Return a package whose outputs were compared with the network's. Raises CompressionError when they differ."""
        ...


@runtime_checkable
class PackageStep(Protocol):
    """A step from a package to a package."""

    def convert(self, package: ModelPackage, context: StepContext) -> ModelPackage:
        """Return a new package, in `context.step_dir(self)`.

        Raises NotApplicable when the model has nothing that it can change or is of another runtime, DataError when
        it lacks data, MissingLibrary.
        """
        ...


Step: TypeAlias = NetworkStep | ExportStep | PackageStep


def step_name(step: Step) -> str:
    """Name a step with its options, for folders and people: `static-int8`, or `static-int8-3f2a` with options."""
    name = "".join("-" + letter.lower() if letter.isupper() else letter for letter in type(step).__name__).strip("-")
    options = {
        spec.name: getattr(step, spec.name)
        for spec in dataclasses.fields(step)  # type: ignore[arg-type]
        if getattr(step, spec.name) != spec.default
    }
    return f"{name}-{hashlib.sha256(repr(sorted(options.items())).encode()).hexdigest()[:4]}" if options else name


def step_record(step: Step) -> dict[str, Any]:
    """Return a step as provenance records it: its class and all its options."""
    return {"step": type(step).__name__, **dataclasses.asdict(step)}  # type: ignore[call-overload]


@dataclass(frozen=True)
class Recipe:
    """Steps under a name. needs_network: it starts from torch; others start from a package."""

    name: str
    steps: Sequence[Step]
    summary: str = ""

    @property
    def needs_network(self) -> bool:
        """Whether it starts from a torch network."""
        return any(isinstance(step, NetworkStep | ExportStep) for step in self.steps)
