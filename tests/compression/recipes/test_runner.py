"""The workbench: beginnings are shared, and what is finished is found again."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import pytest
from tests.compression.slow_model import Rewrite, slow_model_source

from headrace.compression.data.dataset import Splits
from headrace.compression.errors import CompressionError, NotApplicable
from headrace.compression.networks.network import Network
from headrace.compression.recipes.runner import RecipeRunner, Source
from headrace.compression.steps import Recipe, Step, StepContext, step_record
from headrace.contracts import ModelPackage
from headrace.lifecycle.packages.registry import derive_package

done: list[str] = []


@dataclass(frozen=True)
class Copy:
    """Copies a package, and remembers that it did."""

    name: str

    def convert(self, package: ModelPackage, context: StepContext) -> ModelPackage:
        done.append(self.name)
        file = context.step_dir(self) / "model.onnx"
        file.write_bytes(package.file.read_bytes())
        return derive_package(package, file.parent, [file], runtime="onnxruntime", step=step_record(self))


@dataclass(frozen=True)
class Train:
    """Gives the network it is given, and remembers that it did."""

    def change(self, network: Network, context: StepContext) -> Network:
        done.append("train")
        return network


@dataclass(frozen=True)
class Export:
    """Gives the package of the tests for whatever network."""

    def export(self, network: Network, context: StepContext) -> ModelPackage:
        done.append("export")
        (context.step_dir(self)).rmdir()
        source, _ = slow_model_source(context.folder)
        return source.package


class BenchFor(Protocol):
    """Makes a runner of recipes, of some rows unless told which."""

    def __call__(self, network: Network | None = None, data: Splits = ..., seed: int = 0) -> RecipeRunner: ...


@pytest.fixture
def bench_for(tmp_path: Path) -> BenchFor:
    done.clear()
    source, data = slow_model_source(tmp_path / "source")

    def make(network: Network | None = None, data: Splits = data, seed: int = 0) -> RecipeRunner:
        return RecipeRunner(Source(source.package, network, "test"), tmp_path / "steps", data, seed=seed, threads=1)

    return make


def recipe(*steps: Step) -> Recipe:
    made: Sequence[Step] = steps
    return Recipe("test", made)


def test_a_beginning_that_recipes_share_is_made_once(bench_for: BenchFor) -> None:
    bench = bench_for()
    first = bench.make(recipe(Copy("a"), Copy("b")))
    second = bench.make(recipe(Copy("a"), Copy("c")))
    assert done == ["a", "b", "c"]
    assert first.folder != second.folder
    assert [step["name"] for step in second.manifest.provenance["steps"]] == ["a", "c"]
    # The same step after another beginning is something else.
    bench.make(recipe(Copy("b")))
    assert done == ["a", "b", "c", "b"]


def test_what_is_finished_is_found_by_a_later_process_unless_it_is_damaged(bench_for: BenchFor) -> None:
    package = bench_for().make(recipe(Copy("a"), Copy("b")))
    assert bench_for().make(recipe(Copy("a"), Copy("b"))).manifest == package.manifest
    assert done == ["a", "b"]
    package.file.write_bytes(b"damaged")
    bench_for().make(recipe(Copy("a"), Copy("b"))).verify()
    assert done == ["a", "b", "b"]
    (package.folder / "model.toml").unlink()
    bench_for().make(recipe(Copy("a"), Copy("b"))).verify()
    assert done == ["a", "b", "b", "b"]


def test_networks_are_changed_once_in_a_process(bench_for: BenchFor, digits_network: Network) -> None:
    bench = bench_for(digits_network)
    bench.make(recipe(Train(), Export()))
    bench.make(recipe(Train(), Export(), Copy("a")))
    assert done == ["train", "export", "a"]


def test_a_later_process_trains_nothing_that_was_exported(bench_for: BenchFor, digits_network: Network) -> None:
    bench_for(digits_network).make(recipe(Train(), Export()))
    bench_for(digits_network).make(recipe(Train(), Export(), Copy("a")))
    assert done == ["train", "export", "a"]


def test_steps_in_an_impossible_order_are_refused(bench_for: BenchFor, digits_network: Network) -> None:
    with pytest.raises(NotApplicable, match="starts from a torch network"):
        bench_for().make(recipe(Train(), Export()))
    bench = bench_for(digits_network)
    with pytest.raises(CompressionError, match="works on torch networks, and the model was exported before it"):
        bench.make(recipe(Export(), Train()))
    with pytest.raises(CompressionError, match="works on packages; export the network before it"):
        bench.make(recipe(Train(), Rewrite(), Export()))
    with pytest.raises(CompressionError, match="ends with a torch network"):
        bench.make(recipe(Train()))


def test_a_context_of_its_own_has_the_same_data_and_seed(bench_for: BenchFor) -> None:
    bench = bench_for(seed=5)
    context = bench.context("looking")
    assert context.seed == 5
    assert context.folder.is_dir()
    assert context.folder.name == "looking"
