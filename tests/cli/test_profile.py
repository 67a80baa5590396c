"""`headrace models profile`: what it prints, and what it writes."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from headrace.contracts import ModelDirectory

Run = Callable[..., Any]

#: The least that can be measured.
QUICK = ("--rows", "1,4", "--threads", 1, "--seconds", 0)


@pytest.fixture
def added(home: Path, double: Path, headrace: Run) -> Path:
    """A model directory with `double`."""
    assert headrace("models", "add", double, "--max-rows", 32).code == 0
    return home / "models"


def test_a_profile_is_shown_and_written(added: Path, headrace: Run) -> None:
    found = headrace("models", "profile", "double", *QUICK)
    assert found.code == 0, found.err
    assert [line.split()[:2] for line in found.out.splitlines()[:3]] == [["threads", "rows"], ["1", "1"], ["1", "4"]]
    assert found.out.count("advised") == 1
    assert "written into" in found.line
    batching = ModelDirectory(added).get("double").manifest.batching
    assert batching.max_rows in {1, 4}
    assert (batching.threads, batching.max_wait_ms) == (1, 2.0)
    assert batching.seconds_fixed + batching.seconds_per_row > 0
    shown = headrace("models", "show", "double")
    assert shown.code == 0
    assert "profiled" in shown.out
    assert "p95" not in shown.out


def test_a_profile_can_be_read_by_programs_and_leave_the_package_alone(added: Path, headrace: Run) -> None:
    before = (added / "double/1/model.toml").read_bytes()
    found = headrace("models", "profile", "double", "--version", "1", *QUICK, "--no-write", "--json").json()
    assert [(point["threads"], point["rows"]) for point in found["points"]] == [(1, 1), (1, 4)]
    assert found["advice"]["max_rows"] in {1, 4}
    assert found["written"] is None
    assert (added / "double/1/model.toml").read_bytes() == before
    said = headrace("models", "profile", "double", *QUICK, "--no-write")
    assert "nothing was written" in said.err


def test_workers_that_run_with_other_threads_are_pointed_out(
    added: Path, headrace: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HEADRACE_THREADS", "4")
    assert "start them with --threads 1" in headrace("models", "profile", "double", *QUICK).line


def test_real_rows_are_taken_from_a_file(added: Path, headrace: Run) -> None:
    np.savez("rows.npz", x=np.ones((3, 4), np.float32))
    found = headrace("models", "profile", "double", *QUICK, "--data", "rows.npz", "--json").json()
    assert found["inputs"] == "given"
    np.savez("rows.npz", x=np.ones((3, 5), np.float32))
    refused = headrace("models", "profile", "double", *QUICK, "--data", "rows.npz")
    assert refused.code == 1
    assert refused.err.splitlines()[-1].startswith("error: ")


def test_the_sizes_that_were_measured_are_named_and_rows_like_those_to_come_asked_for(
    home: Path, headrace: Run
) -> None:
    length_model(home / "lengths.onnx")
    assert headrace("models", "add", home / "lengths.onnx").code == 0
    found = headrace("models", "profile", "lengths", *QUICK)
    assert found.code == 0, found.err
    (sizes,) = [line for line in found.out.splitlines() if line.startswith("sizes")]
    name, _, size = sizes.removeprefix("sizes").strip().partition(" = ")
    assert name == "len"
    assert f"these figures are for len = {size}, and other sizes take other times" in found.out
    assert "--data FILE" in found.out
    record = ModelDirectory(home / "models").get("lengths").manifest.provenance["profile"]
    assert record["sizes"] == {"len": int(size)}

    np.savez("rows.npz", a=np.ones((3, 7), np.float32), b=np.ones((3, 7), np.float32))
    given = headrace("models", "profile", "lengths", *QUICK, "--data", "rows.npz")
    assert given.code == 0, given.err
    assert "len = 7" in given.out
    assert "other sizes" not in given.out


def length_model(path: Path) -> None:
    """Write a model whose two inputs vary in one length."""
    from onnx import TensorProto, helper, save

    a, b, y = (helper.make_tensor_value_info(name, TensorProto.FLOAT, ["rows", "len"]) for name in "aby")
    graph = helper.make_graph([helper.make_node("Add", ["a", "b"], ["y"])], "lengths", [a, b], [y])
    save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9), path)


@pytest.mark.parametrize("option", ["--rows", "--threads"])
@pytest.mark.parametrize("value", ["1,x", "0", "1,,2", "-1", "1.5"])
def test_numbers_that_are_none_are_misuse(added: Path, headrace: Run, option: str, value: str) -> None:
    found = headrace("models", "profile", "double", option, value)
    assert found.code == 2
    assert "no list of whole numbers above 0" in found.line


def test_a_model_that_is_not_there_is_an_error(added: Path, headrace: Run) -> None:
    found = headrace("models", "profile", "triple")
    assert found.code == 1
    assert "there is no model" in found.line
