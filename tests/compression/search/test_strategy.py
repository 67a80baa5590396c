"""What a search tries, and in which order."""

from __future__ import annotations

import pytest

from headrace.compression.recipes.catalog import BLOCKS, RUNTIMES, Runtime, check_names, runtime_of
from headrace.compression.search.strategy import first_stage, is_shrunk, second_stage


@pytest.mark.parametrize("runtime", RUNTIMES)
@pytest.mark.parametrize(("network", "images"), [(False, False), (True, False), (True, True)])
def test_every_rung_is_a_recipe_for_that_runtime(runtime: Runtime, network: bool, images: bool) -> None:
    rungs = first_stage(runtime, network=network, images=images)
    assert rungs
    assert len(set(rungs)) == len(rungs)
    check_names(rungs)
    assert {runtime_of(name, runtime) for name in rungs} == {runtime}


def test_networks_are_needed_only_where_there_is_one() -> None:
    without = first_stage("onnxruntime", network=False, images=True)
    assert {BLOCKS[name].of for name in without} == {"package"}
    assert [name for name in without if is_shrunk(name)] == []
    pruned = [name for name in first_stage("onnxruntime", network=True, images=False) if is_shrunk(name)]
    assert pruned == ["prune-channels-30", "prune-channels-50", "prune-channels-70"]
    taught = set(first_stage("onnxruntime", network=True, images=True))
    assert {"student-squeezenet", "student-mobilenet-v3"} <= taught


def test_what_shrank_is_combined_with_the_best_ways_to_quantize() -> None:
    found = second_stage(
        "onnxruntime", shrunk=["prune-channels-50", "prune-channels-30"], quantized=["int8-static", "fp16", "graph"]
    )
    assert found == [
        f"prune-channels-{share}+{second}" for share in (50, 30) for second in ("int8-static", "fp16", "graph")
    ]
    check_names(found)


def test_the_next_rung_follows_from_what_was_measured_alone() -> None:
    assert second_stage("onnxruntime", shrunk=[], quantized=["int8-static"]) == []
    assert second_stage("openvino", shrunk=["prune-channels-30"], quantized=["openvino-int8"]) == [
        "prune-channels-30+openvino-int8"
    ]
