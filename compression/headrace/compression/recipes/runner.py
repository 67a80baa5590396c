"""The runner of recipes; a beginning that several of them share runs once."""

from __future__ import annotations

import dataclasses
import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final, TypeAlias

import msgspec

from headrace.compression.data.dataset import Splits
from headrace.compression.errors import CompressionError, NotApplicable
from headrace.compression.steps import (
    ExportStep,
    NetworkStep,
    PackageStep,
    Progress,
    Recipe,
    Step,
    StepContext,
    no_progress,
    step_name,
    step_record,
)
from headrace.contracts import ModelPackage, PackageError, read_package
from headrace.contracts.files import atomic_write

if TYPE_CHECKING:
    from headrace.compression.networks.network import Network

    Made: TypeAlias = Network | ModelPackage

#: In the folder of a step that ended well: where its package lies, relative to that folder.
_DONE: Final = "finished.txt"


@dataclass(frozen=True)
class Source:
    """A model to compress.

    package: the original as it serves, for ONNX Runtime. network: the same model in torch, if there is one. origin:
    the user's name of it, for the record.
    """

    package: ModelPackage
    network: Network | None
    origin: str


class RecipeRunner:
    """Runner of the recipes of one source; a later process finds the packages of finished steps again."""

    def __init__(
        self, source: Source, folder: Path, data: Splits, *, seed: int, threads: int, progress: Progress = no_progress
    ) -> None:
        """folder: for all that is made; for this source, data and seed alone. The others: see StepContext."""
        self._source = source
        self._folder = folder
        self._context = StepContext(folder, data, seed=seed, threads=threads, progress=progress)
        self._networks: dict[tuple[Step, ...], Network] = {}

    def context(self, purpose: str) -> StepContext:
        """Return a context with a folder of its own, for work that is no step of a recipe."""
        folder = self._folder / purpose
        folder.mkdir(parents=True, exist_ok=True)
        return dataclasses.replace(self._context, folder=folder)

    def make(self, recipe: Recipe) -> ModelPackage:
        """Run a recipe. Raises the errors of its steps; NotApplicable when there is no network to start from."""
        if recipe.needs_network and self._source.network is None:
            raise NotApplicable(
                "it starts from a torch network; name that: headrace compress module:factory, or --network"
            )
        steps = tuple(recipe.steps)
        count, made = self._furthest(steps)
        for number in range(count, len(steps)):
            made = self._carry_out(steps[number], made, steps[: number + 1])
        if not isinstance(made, ModelPackage):
            raise CompressionError(f"recipe {recipe.name!r} ends with a torch network, not with a package")
        return made

    def _furthest(self, steps: tuple[Step, ...]) -> tuple[int, Made]:
        """Return the number of steps that are done already, by this process or another, and their product."""
        for count in range(len(steps), 0, -1):
            done = steps[:count]
            if done in self._networks:
                return count, self._networks[done]
            if not isinstance(done[-1], NetworkStep):
                package = _finished(self._folder_of(done) / _DONE)
                if package is not None:
                    return count, package
        needs_network = any(isinstance(step, NetworkStep | ExportStep) for step in steps)
        return 0, self._source.network if needs_network and self._source.network else self._source.package

    def _carry_out(self, step: Step, made: Made, done: tuple[Step, ...]) -> Made:
        context = dataclasses.replace(self._context, folder=self._folder_of(done))
        context.folder.mkdir(parents=True, exist_ok=True)
        if isinstance(step, NetworkStep):
            self._networks[done] = step.change(_network(made, step), context)
            return self._networks[done]
        package = _package_of(step, made, context)
        marker = context.folder / _DONE
        atomic_write(marker, str(package.folder.relative_to(context.folder)).encode())
        return package

    def _folder_of(self, done: Sequence[Step]) -> Path:
        """Return the folder of a beginning, named for all its steps, so that recipes share it."""
        records = msgspec.json.encode([step_record(step) for step in done], order="sorted")
        return self._folder / f"{len(done)}-{step_name(done[-1])}-{hashlib.sha256(records).hexdigest()[:8]}"


def _finished(marker: Path) -> ModelPackage | None:
    """Return the package that a step made before; None if there is none or it is damaged."""
    try:
        package = read_package(marker.parent / marker.read_text("utf-8"))
        package.verify()
    except (FileNotFoundError, PackageError):
        return None
    return package


def _package_of(step: ExportStep | PackageStep, made: Made, context: StepContext) -> ModelPackage:
    if isinstance(step, ExportStep):
        return step.export(_network(made, step), context)
    if not isinstance(made, ModelPackage):
        raise CompressionError(f"{step_name(step)} works on packages; export the network before it")
    return step.convert(made, context)


def _network(made: Made, step: Step) -> Network:
    if isinstance(made, ModelPackage):
        raise CompressionError(f"{step_name(step)} works on torch networks, and the model was exported before it")
    return made
