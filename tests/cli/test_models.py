"""`headrace models`: what is said of a model, and every option of `add`."""

from __future__ import annotations

import re
import tomllib
from collections.abc import Callable
from pathlib import Path

import msgspec
import numpy as np
import pytest
from onnx import TensorProto, helper, numpy_helper
from tests.cli.conftest import Outcome
from tests.onnx_files import save, value

from headrace.cli.commands.models.explained import EXPLANATIONS, explained_toml
from headrace.contracts import TensorSpec, read_package
from headrace.contracts.package.image_recipe import ImageDecode
from headrace.contracts.package.manifest import BatchingAdvice, Constant, Manifest, StoreAdvice
from headrace.contracts.package.server import Server
from headrace.contracts.package.text_recipe import Tokenizer

DOCS = Path(__file__).parents[2] / "docs"

#: Types of the fields of model.toml that have fields of their own.
TABLES = {
    "": Manifest,
    "inputs.": TensorSpec,
    "inputs.decode.": ImageDecode,
    "outputs.": TensorSpec,
    "constants.": Constant,
    "batching.": BatchingAdvice,
    "server.": Server,
    "store.": StoreAdvice,
    "tokenizer.": Tokenizer,
}


@pytest.fixture
def scaled(home: Path) -> Path:
    """y = k * x and z = -x, where x has its rows at axis 1 and k is one number."""
    nodes = [helper.make_node("Mul", ["x", "k"], ["y"]), helper.make_node("Neg", ["x"], ["z"])]
    sizes = [3, None, 2]
    return save(
        home / "scaled.onnx", nodes, [value("x", sizes), value("k", [1])], [value("y", sizes), value("z", sizes)]
    )


@pytest.fixture
def centred(home: Path) -> Path:
    """y = x minus the mean over all rows: rows depend on each other."""
    nodes = [helper.make_node("ReduceMean", ["x", "first"], ["m"]), helper.make_node("Sub", ["x", "m"], ["y"])]
    first = numpy_helper.from_array(np.array([0]), "first")
    return save(home / "centred.onnx", nodes, [value("x", ["n", 4])], [value("y", ["n", 4])], [first])


def test_every_option_of_add_reaches_the_package(headrace: Callable[..., Outcome], scaled: Path) -> None:
    words = (
        "--name",
        "scaler",
        "--version",
        "7",
        "--max-rows",
        8,
        "--max-wait-ms",
        5,
        "--forbid-nan",
        "--store",
        "binary",
    )
    rows = ("--rows-at", "x=1, y=1", "--set", "k=2.5", "--keep", "y", "--row-sizes", "4,8", "--labels", "left,right")
    document = headrace("models", "add", scaled, *words, *rows, "--store", "binary", "--json").json()
    manifest = read_package(Path(document["folder"])).manifest
    assert (manifest.name, manifest.version, manifest.labels) == ("scaler", "7", ("left", "right"))
    assert [(spec.name, spec.rows_at, spec.allow_nan) for spec in manifest.inputs] == [("x", 1, False)]
    (k,) = manifest.constants
    assert k.array().tolist() == [2.5]
    assert (manifest.batching.max_rows, manifest.batching.max_wait_ms, manifest.batching.row_sizes) == (8, 5.0, (4, 8))
    assert manifest.store == StoreAdvice(outputs="binary", keep=("y",))


def test_what_is_not_said_is_found_and_shown(headrace: Callable[..., Outcome], scaled: Path) -> None:
    headrace("models", "add", scaled)
    shown = headrace("models", "show", "scaled").out
    assert re.search(r"input +x FP32 \[3, rows, 2\]", shown)
    assert re.search(r"parameter +k FP32 \[1\], once a request", shown)
    assert re.search(r"output +z FP32 \[3, rows, 2\]", shown)
    assert re.search(r"served +in batches of at most 64 rows, waiting at most 2 ms", shown)


def test_constants_and_outputs_that_are_not_kept_are_shown(headrace: Callable[..., Outcome], scaled: Path) -> None:
    headrace("models", "add", scaled, "--set", "k=[2.5]", "--keep", "z")
    shown = headrace("models", "show", "scaled").out
    assert re.search(r"constant +k FP32 = \[2\.5\]", shown)
    assert re.search(r"output +y FP32 \[3, rows, 2\], not kept", shown)
    assert "parameter" not in shown


def test_a_model_whose_rows_depend_on_each_other_says_that_it_is_served_alone_and_why(
    headrace: Callable[..., Outcome], centred: Path
) -> None:
    added = headrace("models", "add", centred)
    assert added.code == 0
    assert re.search(r"served +one request a run, alone and whole", added.out)
    assert re.search(r"note +rows depend on each other \(.*\): each request runs alone.*--batch overrides", added.out)
    document = headrace("models", "show", "centred", "--json").json()
    assert document["batching"]["independent_rows"] is False
    assert "rows depend on each other" in document["notes"][0]


@pytest.mark.parametrize(("option", "independent"), [("--batch", True), ("--alone", False)])
def test_the_trial_s_verdict_can_be_overridden(
    headrace: Callable[..., Outcome], centred: Path, double: Path, option: str, independent: bool
) -> None:
    for file in (centred, double):
        document = headrace("models", "add", file, option, "--json").json()
        assert document["batching"]["independent_rows"] is independent


def test_a_sample_gives_the_trial_rows_that_run(headrace: Callable[..., Outcome], home: Path) -> None:
    ones = numpy_helper.from_array(np.ones((1, 1, 700), np.float32), "w")
    conv = helper.make_node("Conv", ["x", "w"], ["y"])
    file = save(home / "long.onnx", [conv], [value("x", ["n", 1, "t"])], [value("y", ["n", 1, "u"])], [ones])
    np.savez(home / "rows.npz", x=np.ones((2, 1, 750), np.float32))
    headrace("models", "add", file, "--sample", home / "rows.npz")
    assert "input" in headrace("models", "show", "long").out
    document = headrace("models", "show", "long", "--json").json()
    assert document["inputs"][0]["sample_shape"] == [1, 750]
    assert re.search(r"x FP32 \[rows, 1, t\]; tried with \[1, 750\]", headrace("models", "show", "long").out)


@pytest.mark.parametrize(
    ("words", "code", "message"),
    [
        (("--rows-at", "x"), 2, "'x' is not TENSOR=AXIS, such as state=1"),
        (("--rows-at", "x=-1"), 2, "'x=-1' is not TENSOR=AXIS"),
        (("--rows-at", "=1"), 2, "'=1' is not TENSOR=AXIS"),
        (("--rows-at", "q=0"), 1, "'q'"),
        (("--set", "k"), 2, "'k' is not INPUT=JSON, such as sr=16000"),
        (("--set", "k=fast"), 1, "'k' must be FP32, but holds text"),
        (("--set", "q=1"), 1, "--set names 'q', but the model's inputs are x, k"),
        (("--row-sizes", "4,many"), 2, "'many' is not a number of rows, such as 8"),
        (("--row-sizes", "0"), 2, "'0' is not a number of rows"),
        (("--keep", "q"), 1, "--keep names 'q', but the model's outputs are y, z"),
        (("--sample", "gone.npz"), 2, "does not exist"),
        (("--store", "xml"), 2, "--store"),
    ],
)
def test_a_wrong_option_is_named_and_nothing_is_added(
    headrace: Callable[..., Outcome], scaled: Path, words: tuple[str, str], code: int, message: str
) -> None:
    found = headrace("models", "add", scaled, *words)
    assert found.code == code
    assert message in found.line
    assert headrace("models", "list", "--json").json() == []


def test_show_prints_either_toml_or_json(headrace: Callable[..., Outcome], home: Path, double: Path) -> None:
    headrace("models", "add", double)
    assert headrace("models", "show", "double", "--toml", "--json").code == 2


def test_the_explained_toml_is_the_manifest(headrace: Callable[..., Outcome], scaled: Path) -> None:
    folder = Path(headrace("models", "add", scaled, "--set", "k=2", "--labels", "a,b", "--json").json()["folder"])
    found = headrace("models", "show", "scaled", "--toml")
    assert msgspec.convert(tomllib.loads(found.out), Manifest) == read_package(folder).manifest
    lines = found.out.splitlines()
    for key in ("name", "runtime", "rows_at", "independent_rows", "keep"):
        at = next(number for number, line in enumerate(lines) if line.startswith(f"{key} ="))
        assert lines[at - 1].startswith("# ")


def test_the_explained_toml_of_any_manifest_reads_back() -> None:
    manifest = Manifest(
        name="m",
        version="1",
        runtime="onnxruntime",
        file="model.onnx",
        sha256="0" * 64,
        inputs=(
            TensorSpec(name='quote " and \\', datatype="FP32", shape=(-1, 2), symbols=("länge", "")),
            TensorSpec(name="image", datatype="FP32", shape=(3, 8, 8), decode=ImageDecode(resize=(8, 8), mean=(0.5,))),
            TensorSpec(name="gray", datatype="FP32", shape=(8, 8), decode=ImageDecode(crop=8, channels="gray")),
            TensorSpec(name="ids", datatype="INT64", shape=(-1,)),
        ),
        outputs=(TensorSpec(name="y", datatype="BYTES", per_request=True),),
        constants=(
            Constant(name="sr", datatype="INT64", value=16000),
            Constant(name="table", datatype="FP32", value=[[1.5, 2.0], [3.0, 4.0]]),
            Constant(name="text", datatype="BYTES", value="a\nb"),
        ),
        files={"weights/a b.bin": "1" * 64},
        labels=("a, b", 'say "c"'),
        tokenizer=Tokenizer(file="tokenizer.json", ids="ids", max_length=128),
        batching=BatchingAdvice(row_sizes=(8, 64)),
        store=StoreAdvice(outputs="binary", keep=("y",)),
        provenance={"source": "x", "steps": [{"step": "prune", "kept": None}], "trial": {"verdict": "independent"}},
    )
    expected = msgspec.structs.replace(
        manifest, provenance={"source": "x", "steps": [{"step": "prune"}], "trial": {"verdict": "independent"}}
    )
    assert msgspec.convert(tomllib.loads(explained_toml(manifest)), Manifest) == expected


@pytest.fixture
def pool(home: Path) -> Path:
    """y = the mean of each channel of images of 8 by 8 pixels."""
    node = helper.make_node("GlobalAveragePool", ["image"], ["y"])
    return save(home / "pool.onnx", [node], [value("image", [None, 3, 8, 8])], [value("y", [None, 3, 1, 1])])


@pytest.mark.parametrize("prefix", ["", "image="])
def test_a_recipe_for_images_is_json_or_a_well_known_name(
    headrace: Callable[..., Outcome], pool: Path, prefix: str
) -> None:
    recipe = prefix + '{"resize": [8, 8], "mean": [0.5]}'
    folder = Path(headrace("models", "add", pool, "--decode", recipe, "--json").json()["folder"])
    assert read_package(folder).manifest.inputs[0].decode == ImageDecode(resize=(8, 8), mean=(0.5,))
    assert "bulk jobs decode it from images" in headrace("models", "show", "pool").out
    text = headrace("models", "show", "pool", "--toml").out
    assert "[inputs.decode]\n# Length of the shorter side" in text
    assert msgspec.convert(tomllib.loads(text), Manifest) == read_package(folder).manifest


def test_a_recipe_that_is_none_is_misuse_and_one_that_does_not_fit_fails(
    headrace: Callable[..., Outcome], pool: Path
) -> None:
    for wrong in ("cifar", '{"size": 3}', '{"crop": -1}'):
        found = headrace("models", "add", pool, "--decode", wrong)
        assert found.code == 2, found.out
    found = headrace("models", "add", pool, "--decode", "imagenet")
    assert found.code == 1
    assert "it gives 224 by 224 pixels, but the input takes 8 by 8" in found.err


def test_a_tokenizer_is_shown_with_the_column_of_text(headrace: Callable[..., Outcome], home: Path) -> None:
    file = save(
        home / "ids.onnx",
        [helper.make_node("Mul", ["input_ids", "attention_mask"], ["y"])],
        [value(name, [None, None], TensorProto.INT64) for name in ("input_ids", "attention_mask")],
        [value("y", [None, None], TensorProto.INT64)],
    )
    (home / "tokenizer.json").write_text('{"model": {}, "truncation": {"max_length": 64}}')
    assert headrace("models", "add", file, "--tokenizer", home / "tokenizer.json").code == 0
    shown = " ".join(headrace("models", "show", "ids").out.split())
    assert "bulk jobs make input_ids, attention_mask of the column 'text', at most 64 tokens" in shown


def test_every_field_of_a_manifest_has_an_explanation_and_no_other() -> None:
    fields = {f"{table}{name}" for table, kind in TABLES.items() for name in kind.__struct_fields__}
    assert set(EXPLANATIONS) == fields
    assert all(text.endswith(".") and "\n" not in text for text in EXPLANATIONS.values())


def test_the_page_on_packages_has_the_same_explanations() -> None:
    page = (DOCS / "model-packages.md").read_text("utf-8")
    for field, text in EXPLANATIONS.items():
        if not field.startswith("outputs."):
            key = field.removeprefix("inputs.") if field.startswith("inputs.") else field.rpartition(".")[2]
            assert f"| `{key}` | {text} |" in page, field


def blocks(page: str, kind: str) -> list[str]:
    return re.findall(rf"^```{kind}\n(.*?)^```$", page, re.DOTALL | re.MULTILINE)


def sizes_of(spec: TensorSpec) -> tuple[int, ...]:
    """The shape of five rows, three wherever sizes vary."""
    return tuple(3 if size == -1 else size for size in spec.whole_shape(5))


@pytest.mark.parametrize("number", [0, 1], ids=["minimal", "full"])
def test_the_examples_of_the_page_are_packages_that_run(tmp_path: Path, number: int) -> None:
    from headrace.contracts import ModelDirectory
    from headrace.contracts.package.manifest import sha256_of
    from headrace.runtimes.loading import load_model

    text = blocks((DOCS / "model-packages.md").read_text("utf-8"), "toml")[number]
    folder = tmp_path / "mixer" / "1"
    folder.mkdir(parents=True)
    nodes = [helper.make_node("Mul", ["x", "gain"], ["h"]), helper.make_node("Add", ["state", "h"], ["next_state"])]
    nodes += [helper.make_node("Neg", ["h"], ["y"])]
    if number:
        inputs = [value("x", ["n", "t"]), value("state", [2, "n", "t"]), value("gain", [])]
        outputs = [value("y", ["n", "t"]), value("next_state", [2, "n", "t"])]
    else:
        nodes = [helper.make_node("Neg", ["x"], ["y"])]
        inputs, outputs = [value("x", ["n", 4])], [value("y", ["n", 4])]
    file = save(folder / "model.onnx", nodes, inputs, outputs)
    (folder / "model.toml").write_text(re.sub(r'sha256 = ".*"', f'sha256 = "{sha256_of(file)}"', text), "utf-8")
    package = ModelDirectory(tmp_path).get("mixer")
    package.verify()
    model = load_model(package, "cpu", 1)
    specs = package.manifest.inputs
    batch = {
        spec.name: np.ones([3 if size == -1 else size for size in spec.whole_shape(5)], np.float32) for spec in specs
    }
    assert {name: array.shape for name, array in model.infer(batch).items()} == {
        spec.name: tuple(3 if size == -1 else size for size in spec.whole_shape(5))
        for spec in package.manifest.signature.outputs
    }


def test_one_package_that_is_wrong_hides_no_other_and_can_be_removed(
    headrace: Callable[..., Outcome], home: Path, double: Path
) -> None:
    headrace("models", "add", double)
    broken = home / "models" / "broken" / "1"
    broken.mkdir(parents=True)
    (broken / "model.toml").write_text("bogus = 1")
    found = headrace("models", "list")
    assert found.code == 0
    assert "double" in found.out
    assert "broken: models/broken/1/model.toml is wrong" in found.err
    assert headrace("models", "rm", "broken", "1", "--yes").code == 0
    assert not broken.exists()


def test_a_package_made_by_hand_says_that_nothing_proved_its_rows_independent(
    headrace: Callable[..., Outcome], home: Path, double: Path
) -> None:
    headrace("models", "add", double)
    manifest = next((home / "models" / "double").glob("*/model.toml"))
    text = manifest.read_text()
    assert "no trial is recorded" not in headrace("models", "show", "double").out
    manifest.write_text(text.replace("[provenance.trial]", "[provenance.other]"))
    assert "no trial is recorded" in headrace("models", "show", "double").out
