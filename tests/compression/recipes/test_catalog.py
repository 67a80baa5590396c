"""The recipes that have names."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from headrace.compression.distillation.distill import Distill
from headrace.compression.errors import CompressionError
from headrace.compression.recipes.catalog import BLOCKS, check_names, parse_recipe, runtime_of
from headrace.compression.steps import ExportStep, NetworkStep, PackageStep

PAGE = Path(__file__).parents[3] / "docs" / "compression.md"


@pytest.mark.parametrize("name", BLOCKS)
def test_every_block_makes_steps_of_the_kind_it_says(name: str) -> None:
    recipe = parse_recipe(name)
    assert recipe.name == name
    assert recipe.summary == BLOCKS[name].summary
    assert recipe.needs_network == (BLOCKS[name].of == "network")
    assert isinstance(recipe.steps[-1], ExportStep | PackageStep)


def test_a_recipe_without_an_export_gets_the_one_of_its_runtime() -> None:
    def steps(name: str, runtime: str = "onnxruntime") -> list[str]:
        return [type(step).__name__ for step in parse_recipe(name, runtime).steps]  # type: ignore[arg-type]

    assert steps("prune-channels-50") == ["PruneChannels", "OnnxExport"]
    assert steps("prune-channels-50", "torch") == ["PruneChannels", "TorchExport"]
    assert steps("prune-channels-50+int8-static") == ["PruneChannels", "OnnxExport", "StaticInt8"]
    assert steps("prune-channels-50+openvino-int8") == ["PruneChannels", "OnnxExport", "OpenVinoInt8"]
    assert steps("prune-channels-50", "openvino") == ["PruneChannels", "OnnxExport", "OpenVinoIR"]
    assert steps("prune-channels-50", "litert") == ["PruneChannels", "LiteRtExport"]
    assert steps("prune-channels-50", "tvm") == ["PruneChannels", "OnnxExport", "TvmLibrary"]
    assert steps("int8-static", "torch") == ["StaticInt8"]


def test_a_student_of_ones_own_is_named_by_its_factory() -> None:
    recipe = parse_recipe("distill=students.py:small+int8-static")
    assert [type(step).__name__ for step in recipe.steps] == ["Distill", "OnnxExport", "StaticInt8"]
    assert recipe.steps[0] == Distill(student="students.py:small")
    check_names(["distill=package.students:small"])


def test_steps_come_in_an_order_that_is_possible() -> None:
    for name in ("int8-static+prune-channels-50", "graph+qat-int8"):
        with pytest.raises(CompressionError, match="after it was exported; write the blocks in the order"):
            parse_recipe(name)


def test_names_nobody_knows_are_refused_with_the_nearest() -> None:
    with pytest.raises(CompressionError, match="there is no recipe 'int8-sttic'; did you mean 'int8-static'"):
        check_names(["graph", "graph+int8-sttic"])
    with pytest.raises(CompressionError, match="there is no recipe ''"):
        parse_recipe("graph+")


def test_the_runtime_is_that_of_the_last_block_that_says() -> None:
    assert runtime_of("prune-channels-50+int8-static", "torch") == "onnxruntime"
    assert runtime_of("prune-channels-50", "torch") == "torch"
    assert runtime_of("graph+openvino", "onnxruntime") == "openvino"


def test_a_recipe_is_the_same_value_each_time() -> None:
    for name in BLOCKS:
        assert list(parse_recipe(name).steps) == list(parse_recipe(name).steps)


def test_network_steps_come_before_the_export() -> None:
    for name in BLOCKS:
        kinds = [isinstance(step, NetworkStep) for step in parse_recipe(name).steps]
        assert kinds == sorted(kinds, reverse=True)


def recipes_table() -> str:
    lines = ["| Recipe | Starts from a | Runs on | Needs | What it does |", "|---|---|---|---|---|"]
    lines += [
        f"| `{name}` | {block.of} | {block.runtime or 'any'} | {block.needs or 'nothing more'} | {block.summary} |"
        for name, block in BLOCKS.items()
    ]
    return "\n".join(lines)


def test_the_guide_lists_every_recipe() -> None:
    listed = re.search(r"<!-- recipes -->\n(.*?)\n<!-- end -->", PAGE.read_text("utf-8"), re.DOTALL)
    assert listed is not None
    assert listed[1] == recipes_table(), f"put this between the marks of {PAGE.name}:\n{recipes_table()}"
