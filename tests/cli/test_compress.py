"""`headrace compress`: from a model and rows to a version that a worker serves, and every way in which it refuses."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import psycopg
import pytest
from onnx import TensorProto, helper
from tests.cli.test_up import first_document
from tests.compression.digit_net import DEMO_DATA
from tests.compression.slow_digits import WithoutChain, write_slow_digits
from tests.compression.slow_model import CHAIN, _block, slow_model_rows, with_stubs, write_model

from headrace.compression.recipes import catalog
from headrace.contracts import ModelDirectory
from headrace.contracts.package.manifest import sha256_of

Run = Callable[..., Any]
ROOT = Path(__file__).parents[2]

#: The least that can be timed.
QUICK = ("--seconds", 0.1, "--at-rows", 16)


def checksums(folder: Path) -> dict[str, str]:
    return {str(path): sha256_of(path) for path in sorted(folder.rglob("*")) if path.is_file()}


@pytest.fixture
def stubs(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(catalog, "BLOCKS", {**with_stubs(), "unchain": _block(WithoutChain())})


@pytest.fixture
def slow_model(home: Path, headrace: Run, stubs: None) -> Path:
    """A model directory with a model of which `lean` makes a much faster one, and rows in rows.npz."""
    write_model(home / "made-up.onnx", chain=CHAIN)
    assert headrace("models", "add", home / "made-up.onnx").code == 0
    rows = slow_model_rows()
    columns: dict[str, Any] = {"label": rows.labels, **rows.inputs}
    np.savez(home / "rows.npz", **columns)
    return home / "models"


def digits_rows(path: Path, count: int = 1797) -> Path:
    with np.load(DEMO_DATA / "digits.npz") as file:
        images, labels = file["images"][-count:], file["labels"][-count:]
    np.savez(path, image=(images.astype(np.float32) / np.float32(16))[:, None], label=labels.astype(np.int64))
    return path


def test_digits_are_compressed_and_the_new_version_served_by_a_worker(
    home: Path, headrace: Run, headrace_child: Callable[..., subprocess.Popen[str]], stubs: None
) -> None:
    write_slow_digits(home / "slow.onnx")
    labels = ",".join("0123456789")
    assert headrace("models", "add", "slow.onnx", "--name", "digits", "--labels", labels).code == 0
    digits_rows(home / "rows.npz")
    before = checksums(home / "models/digits/1")
    found = headrace(
        *("compress", "digits", "--data", "rows.npz", "--label", "label", "--max-drop", "3%"),
        *("--recipe", "unchain+int8-static", *QUICK, "--json"),
    )
    assert found.code == 0, found.err
    document = found.json()
    assert document["chosen"] == "unchain+int8-static"
    assert document["promoted"] == {"name": "digits", "version": "2", "folder": str(Path("models/digits/2"))}
    assert checksums(home / "models/digits/1") == before
    page = Path(document["report"]).read_text("utf-8")
    assert "unchain+int8-static pays" in page

    record = ModelDirectory(home / "models").get("digits", "2").manifest.provenance
    assert [step["step"] for step in record["steps"]] == ["WithoutChain", "StaticInt8"]
    made = record["compression"]
    assert (made["recipe"], made["origin"], made["seed"]) == ("unchain+int8-static", "digits 1", 0)
    assert len(made["data_sha256"]["calibration"]) == 64
    assert made["versions"]["onnxruntime"]
    assert made["measurement"]["rows"][0]["ratio"]["low"] > 1
    assert made["test"]["value"] > 0.9

    with np.load(home / "rows.npz") as rows:
        image, label = rows["image"][:4], rows["label"][:4]
    (home / "input.json").write_text(json.dumps({"image": image.tolist()}))
    up = headrace_child("up", "--json", "--no-flower")
    address = first_document(up)["address"]
    answer = headrace("predict", "digits", "input.json", "--json").json()
    assert answer["outputs"]["label"] == label.tolist()
    with psycopg.connect(address["database_url"]) as connection:
        assert connection.execute("SELECT model, version, state FROM predictions").fetchall() == [
            ("digits", "2", "succeeded")
        ]
    up.send_signal(signal.SIGTERM)
    up.communicate()
    assert up.returncode == 0


def test_what_pays_is_promoted_and_what_was_tried_is_shown(slow_model: Path, headrace: Run) -> None:
    command = ("compress", "made-up@1", "--data", "rows.npz", "--label", "label", *QUICK)
    found = headrace(*command, "--recipe", "lean", "--recipe", "idle", "--no-promote")
    assert found.code == 0, found.err
    lines = {line.split()[0]: line for line in found.out.splitlines()}
    assert lines["lean"].rstrip().endswith("pays")
    assert lines["idle"].rstrip().endswith("not applicable: there is nothing to do")
    assert "not applicable: there is nothing to do" in found.err
    assert lines["chosen"].split()[1] == "lean:"
    assert Path(lines["report"].split()[1]).is_file()
    assert "new version" not in found.out
    assert ModelDirectory(slow_model).versions("made-up") == ["1"]

    again = headrace(*command, "--recipe", "lean", "--report", "page")
    assert again.code == 0, again.err
    assert ModelDirectory(slow_model).versions("made-up") == ["1", "2"]
    assert "workers that run already must be restarted" in again.err
    assert sorted(path.name for path in Path("page").iterdir()) == ["report.html", "report.json"]


def test_when_nothing_pays_the_original_stays_and_the_exit_code_is_1(slow_model: Path, headrace: Run) -> None:
    before = checksums(slow_model)
    command = ("compress", "made-up", "--data", "rows.npz", "--label", "label", "--recipe", "slower", *QUICK)
    found = headrace(*command)
    assert found.code == 1
    assert "no recipe was worth it and within the bound; the original stays as it is" in found.out
    assert checksums(slow_model) == before
    document = headrace(*command, "--json")
    assert document.code == 1
    assert (document.json()["chosen"], document.json()["promoted"]) == ("", None)


def test_what_is_not_worth_it_is_not_promoted_and_says_what_asks_for_more(slow_model: Path, headrace: Run) -> None:
    command = ("compress", "made-up", "--data", "rows.npz", "--label", "label", "--recipe", "same", *QUICK)
    found = headrace(*command, "--min-speedup", "1.5")
    assert found.code == 1, found.err
    # How two processes of the same model compare is the machine's business; the size is not.
    row = next(line for line in found.out.splitlines() if line.startswith("same"))
    assert "1.00 times as small; --min-speedup 1.5 asks for more" in row or "not faster" in row
    assert ModelDirectory(slow_model).versions("made-up") == ["1"]
    document = headrace(*command, "--min-speedup", "1.5", "--json").json()
    assert document["min_speedup"] == document["record"]["min_speedup"] == 1.5


def test_the_reasons_of_failed_recipes_are_cut_to_the_width_of_the_table(slow_model: Path, headrace: Run) -> None:
    command = ("compress", "made-up", "--data", "rows.npz", "--label", "label", *QUICK, "--no-promote")
    found = headrace(*command, "--recipe", "idle", "--recipe", "wordy", "--recipe", "buggy")
    assert found.code == 1, found.err
    lines = {line.split()[0]: line.rstrip() for line in found.out.splitlines()}
    assert lines["idle"].endswith("not applicable: there is nothing to do")
    assert "failed: RuntimeError: a library's own bug" in lines["buggy"]
    assert lines["wordy"].endswith("…")
    assert len(lines["wordy"]) <= 200
    assert "word " * 60 + "end" in " ".join(found.err.split())


def test_layers_are_left_out_by_name_or_pattern(slow_model: Path, headrace: Run) -> None:
    found = headrace(
        *("compress", "made-up", "--data", "rows.npz", "--label", "label", "--recipe", "int8-dynamic"),
        *("--exclude", "layer[0-2],ArgMax", *QUICK, "--no-promote", "--json"),
    )
    document = found.json()
    assert document["record"]["exclude"] == ["layer[0-2]", "ArgMax"]
    assert document["attempts"][0]["notes"][0] == "an answer depends a little on the rows that share its batch"


def test_an_onnx_file_becomes_a_first_version(slow_model: Path, headrace: Run) -> None:
    found = headrace(
        *("compress", "made-up.onnx", "--name", "fresh", "--data", "rows.npz", "--label", "label"),
        *("--recipe", "lean", *QUICK, "--json"),
    )
    assert found.code == 0, found.err
    assert found.json()["origin"] == "made-up.onnx"
    assert found.json()["promoted"]["name"] == "fresh"
    assert ModelDirectory(slow_model).versions("fresh") == ["1"]


def test_a_torch_network_is_exported_and_compressed(home: Path, headrace: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(ROOT)
    digits_rows(home / "rows.npz", 600)
    found = headrace(
        *("compress", "tests.compression.digit_net:trained", "--outputs", "label,scores", "--name", "digits"),
        *("--labels", ",".join("0123456789"), "--data", "rows.npz", "--label", "label"),
        *("--recipe", "int8-static", *QUICK, "--no-promote", "--json"),
    )
    # Whether int8 is faster is the machine's business.
    assert found.code in {0, 1}, found.err
    document = found.json()
    assert document["origin"] == "tests.compression.digit_net:trained"
    assert document["attempts"][0]["status"] == "measured"
    assert document["baseline"]["value"] > 0.9
    assert document["record"]["network"] == "tests.compression.digit_net:trained"


def write_bad_files(folder: Path) -> None:
    """Write files that something is wrong with."""
    rows = slow_model_rows()
    assert rows.labels is not None
    np.savez(folder / "few.npz", x=rows.inputs["x"][:20], label=rows.labels[:20])
    np.savez(folder / "too-few-to-calibrate.npz", x=rows.inputs["x"][:40], label=rows.labels[:40])
    np.savez(folder / "narrow.npz", x=rows.inputs["x"][:, :7], label=rows.labels)
    np.savez(folder / "other.npz", y=rows.inputs["x"], z=rows.inputs["x"], label=rows.labels)
    np.savez(folder / "numbers.npz", x=rows.inputs["x"], label=rows.inputs["x"][:, 0])
    (folder / "not.npz").write_bytes(b"nothing of the kind")
    x, y = (helper.make_tensor_value_info(name, TensorProto.FLOAT, ["rows", 16]) for name in "xy")
    odd = helper.make_graph([helper.make_node("Frobnicate", ["x"], ["y"], domain="odd")], "odd", [x], [y])
    opsets = [helper.make_opsetid("", 17), helper.make_opsetid("odd", 1)]
    onnx.save(helper.make_model(odd, opset_imports=opsets, ir_version=9), "odd.onnx")


@pytest.mark.parametrize(
    ("model", "words", "code", "says"),
    [
        ("", (), 2, "Missing argument 'MODEL'"),
        ("made-up", (), 2, "Missing option '--data'"),
        ("made-up", ("--data", "missing.npz"), 2, "'missing.npz' does not exist"),
        ("made-up", ("--data", "not.npz"), 1, "not.npz"),
        ("made-up", ("--data", "few.npz"), 1, "20 rows are too few"),
        ("made-up", ("--data", "too-few-to-calibrate.npz", "--recipe", "int8-static"), 1, "at least 32 rows"),
        ("made-up", ("--data", "narrow.npz"), 1, "has rows of the shape [7], but the model takes x FP32 [rows, 16]"),
        ("made-up", ("--data", "other.npz"), 1, "'y'"),
        ("made-up", ("--data", "rows.npz", "--label", "lable"), 1, "there is no label column 'lable'"),
        ("made-up", ("--data", "rows.npz", "--label", "label", "--metric", "rmse"), 1, "rmse"),
        ("made-up", ("--data", "rows.npz", "--label", "label", "--metric", "beauty"), 1, "'beauty'"),
        ("made-up", ("--data", "rows.npz", "--label", "label", "--output", "nothing"), 1, "'nothing'"),
        ("made-up", ("--data", "rows.npz", "--max-drop", "much"), 1, "no bound of a drop"),
        ("made-up", ("--data", "rows.npz", "--recipe", "leann"), 1, "did you mean 'lean'"),
        ("made-up", ("--data", "rows.npz", "--recipe", "lean", "--search"), 2, "leave --recipe out"),
        ("made-up", ("--data", "rows.npz", "--recipe", "lean", "--for", "openvino"), 2, "lean is for onnxruntime"),
        ("made-up", ("--data", "rows.npz", "--label", "label", "--labels", "a,b"), 1, "are for ONNX files"),
        ("made-up", ("--data", "rows.npz", "--label", "label", "--recipe", "absent"), 1, '"headrace[openvino]"'),
        ("made-up", ("--data", "rows.npz", "--label", "label", "--recipe", "buggy"), 1, "a library's own bug"),
        ("made-up", ("--data", "rows.npz", "--label", "label", "--recipe", "prune-2-4"), 1, "--network"),
        ("made-up", ("--data", "rows.npz", "--min-speedup", "0.9"), 2, "min-speedup"),
        ("made-up", ("--data", "rows.npz", "--exclude", "layre0"), 1, "named 'layre0' to exclude"),
        ("made-up", ("--data", "rows.npz", "--exclude", "Mat*", "--recipe", "int8-dynamic"), 1, "is left for Dynamic"),
        ("made-down", ("--data", "rows.npz"), 1, "there is no model 'made-down'"),
        ("made-up@7", ("--data", "rows.npz"), 1, "has no version '7'"),
        ("missing.onnx", ("--data", "rows.npz"), 1, "missing.onnx"),
        ("odd.onnx", ("--data", "rows.npz"), 1, "Frobnicate"),
        ("no_such_module:make", ("--data", "rows.npz"), 1, "no_such_module"),
    ],
)
def test_what_cannot_be_is_refused_in_one_line(
    slow_model: Path, headrace: Run, model: str, words: tuple[str, ...], code: int, says: str
) -> None:
    write_bad_files(slow_model.parent)
    before = checksums(slow_model)
    found = headrace("compress", *([model] if model else []), *words, *QUICK)
    assert (found.code, "Traceback" in found.err) == (code, False), found.err
    assert says in found.line
    if code == 1:
        assert sum(line.startswith("error: ") for line in found.err.splitlines()) == 1
    assert checksums(slow_model) == before


def test_a_library_that_is_not_installed_is_named_with_its_extra(slow_model: Path) -> None:
    def run(library: str, *words: str) -> subprocess.CompletedProcess[str]:
        block = f"import sys; sys.modules[{library!r}] = None; sys.argv = ['headrace', *{[*words]!r}]"
        code = f"{block}\nfrom headrace.cli.main import main\nmain()"
        return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)

    rows = ("--data", "rows.npz", "--label", "label", "--seconds", "0.1")
    for library, extra, words in (
        ("onnxruntime", "worker", ("compress", "made-up", *rows)),
        ("onnxslim", "quantize", ("compress", "made-up", *rows, "--recipe", "graph")),
        ("torch", "torch", ("compress", "tests.compression.digit_net:trained", *rows)),
    ):
        found = run(library, *words)
        assert found.returncode == 1, found.stderr
        assert "Traceback" not in found.stderr
        assert f'pip install "headrace[{extra}]"' in found.stderr
    assert ModelDirectory(slow_model).versions("made-up") == ["1"]


def test_an_interrupted_run_ends_at_once_and_leaves_the_original_alone(slow_model: Path) -> None:
    before = checksums(slow_model)
    code = (
        "from headrace.compression.recipes import catalog\nfrom tests.compression.slow_model import with_stubs\n"
        "catalog.BLOCKS = with_stubs(); from headrace.cli.main import main; main()"
    )
    words = ("compress", "made-up", "--data", "rows.npz", "--label", "label", "--recipe", "waits")
    with subprocess.Popen(
        [sys.executable, "-c", code, *words],
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "waiting\n"
        second = subprocess.run(
            [sys.executable, "-m", "headrace.cli", *words[:-2]], capture_output=True, text=True, check=False
        )
        process.send_signal(signal.SIGINT)
        _, err = process.communicate()
    assert process.returncode == 130
    assert "Traceback" not in err
    assert second.returncode == 1
    assert f"(pid {process.pid}), and two would spoil each other's times" in second.stderr
    assert checksums(slow_model) == before
    assert list(Path(".headrace/compress").glob("*/attempts/*")) == []


def test_run_is_the_command_when_none_is_named(slow_model: Path, headrace: Run) -> None:
    words = ("made-up", "--data", "missing.npz")
    assert headrace("compress", *words).line == headrace("compress", "run", *words).line
    assert headrace("compress", "--data", "missing.npz", "made-up").line == headrace("compress", "run", *words).line


def test_a_model_that_is_no_image_classifier_is_not_reviewed(slow_model: Path, headrace: Run) -> None:
    found = headrace("compress", "review", "made-up", "--data", "rows.npz", "--label", "label")
    assert found.code == 1
    assert "one FP32 image" in found.line


def test_recipes_are_listed(headrace: Run) -> None:
    shown = headrace("compress", "recipes")
    assert shown.code == 0
    assert {line.split()[0] for line in shown.out.splitlines()[1:]} >= {"int8-static", "prune-channels-50"}
    listed = headrace("compress", "recipes", "--json").json()
    assert {entry["name"] for entry in listed} == set(catalog.BLOCKS)
    assert set(listed[0]) == {"name", "of", "runtime", "needs", "summary"}


def test_the_help_reads_well_in_80_columns(headrace: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    monkeypatch.setenv("TERMINAL_WIDTH", "80")
    found = headrace("compress", "run", "--help")
    assert max(map(len, found.out.splitlines())) <= 80
    for title in ("SearchConfig", "Search", "Names"):
        assert f"─ {title} ─" in found.out
