"""Text as inputs, by the tokenizer of the package."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pyarrow as pa
import pytest
import tokenizers
from hypothesis import given
from hypothesis import strategies as st
from tests.bulk.columns.made import job, manifest, one, reasons, tensor, tensors_of

from headrace.bulk.columns.base import ColumnMismatch, PreparedRows
from headrace.bulk.columns.preparation import ColumnPreparation, make_preparation
from headrace.contracts import ModelPackage, PackageError
from headrace.contracts.package.text_recipe import Tokenizer

WORDS = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", *(f"w{number}" for number in range(20))]
RECIPE = Tokenizer(file="tokenizer.json", ids="input_ids", attention_mask="attention_mask", type_ids="token_type_ids")
INPUTS = tuple(tensor(name, "INT64", (-1,)) for name in ("input_ids", "attention_mask", "token_type_ids"))


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A package's folder with a tokenizer, whose file asks for padding and truncation as many do."""
    made = tokenizers.Tokenizer(tokenizers.models.WordLevel({word: i for i, word in enumerate(WORDS)}, "[UNK]"))
    made.pre_tokenizer = tokenizers.pre_tokenizers.Whitespace()
    made.post_processor = tokenizers.processors.TemplateProcessing(
        single="[CLS] $A [SEP]", special_tokens=[("[CLS]", 2), ("[SEP]", 3)]
    )
    made.enable_truncation(4)
    made.enable_padding(length=16)
    folder = tmp_path_factory.mktemp("package")
    made.save(str(folder / "tokenizer.json"))
    return folder


def preparation(folder: Path, schema: pa.Schema, recipe: Tokenizer = RECIPE, **fields: Any) -> ColumnPreparation:
    inputs = fields.pop("inputs", INPUTS)
    package = ModelPackage(folder=folder, manifest=manifest(*inputs, tokenizer=recipe))
    return make_preparation(package, job(**fields), schema)


def rows_of(folder: Path, texts: list[str | None], recipe: Tokenizer = RECIPE, **fields: Any) -> PreparedRows:
    table = one(texts, name="text", kind=pa.string())
    return preparation(folder, table.schema, recipe, **fields).prepare(table)


def with_(**changes: Any) -> Tokenizer:
    return msgspec.structs.replace(RECIPE, **changes)


def test_texts_are_token_ids_with_mask_and_types_padded_to_the_longest(folder: Path) -> None:
    found = tensors_of(rows_of(folder, ["w0 w1 w2 w3 w4", "w5", "what"]))
    assert found["input_ids"].tolist() == [[2, 4, 5, 6, 7, 8, 3], [2, 9, 3, 0, 0, 0, 0], [2, 1, 3, 0, 0, 0, 0]]
    assert found["attention_mask"].tolist() == [[1] * 7, [1, 1, 1, 0, 0, 0, 0], [1, 1, 1, 0, 0, 0, 0]]
    assert not found["token_type_ids"].any()
    assert {array.dtype for array in found.values()} == {np.dtype(np.int64)}


def test_rows_are_padded_no_further_than_those_of_their_batch(folder: Path) -> None:
    rows = rows_of(folder, ["w0 w1 w2 w3 w4", "w5", "w6 w7"])
    assert rows.lengths is not None
    assert rows.lengths.tolist() == [7, 3, 4]
    assert rows.groups is None
    assert rows.tensors(np.array([2, 1]))["input_ids"].tolist() == [[2, 10, 11, 3], [2, 9, 3, 0]]


def test_lengths_go_with_the_good_rows(folder: Path) -> None:
    rows = rows_of(folder, [None, "w1 w2", "w1"])
    assert rows.good.tolist() == [1, 2]
    assert rows.lengths is not None
    assert rows.lengths.tolist() == [4, 3]


def test_a_text_that_is_too_long_is_a_bad_row_that_says_how_long_it_is(folder: Path) -> None:
    rows = rows_of(folder, ["w0 w1 w2", "w0 w1 w2 w3"], with_(max_length=5))
    assert rows.good.tolist() == [0]
    assert reasons(rows) == {
        1: "column 'text' has 6 tokens, but the model takes 5; --truncate cut scores the beginning"
    }
    assert rows.refused[0].type == "TextTooLong"


def test_cutting_keeps_the_special_tokens(folder: Path) -> None:
    rows = rows_of(folder, ["w0 w1 w2 w3"], with_(max_length=5), truncate="cut")
    assert tensors_of(rows)["input_ids"].tolist() == [[2, 4, 5, 6, 3]]


def test_an_input_of_fixed_size_bounds_and_pads(folder: Path) -> None:
    inputs = tuple(tensor(name, "INT32", (6,)) for name in ("input_ids", "attention_mask", "token_type_ids"))
    rows = rows_of(folder, ["w0", "w0 w1 w2 w3 w4"], inputs=inputs)
    assert rows.good.tolist() == [0]
    assert tensors_of(rows)["input_ids"].tolist() == [[2, 4, 3, 0, 0, 0]]
    assert tensors_of(rows)["input_ids"].dtype == np.int32


def test_lengths_of_batches_are_multiples_up_to_the_bound(folder: Path) -> None:
    recipe = with_(pad_multiple=8, max_length=10)
    assert tensors_of(rows_of(folder, ["w0"], recipe))["input_ids"].shape == (1, 8)
    assert tensors_of(rows_of(folder, ["w0 " * 7], recipe))["input_ids"].shape == (1, 10)


def test_another_token_may_fill_up(folder: Path) -> None:
    for recipe in (with_(pad_token="[UNK]"), with_(pad_id=1)):
        assert tensors_of(rows_of(folder, ["w0 w1", "w0"], recipe))["input_ids"].tolist()[1] == [2, 4, 3, 1]
    with pytest.raises(PackageError, match=r"'\[NO\]' is no token of tokenizer.json"):
        rows_of(folder, ["w0"], with_(pad_token="[NO]"))


def test_texts_of_different_lengths_share_no_batch_of_a_model_without_a_mask(folder: Path) -> None:
    rows = rows_of(folder, ["w0", "w0 w1", "w2"], with_(attention_mask="", type_ids=""), inputs=INPUTS[:1])
    assert rows.lengths is None
    assert rows.groups is not None
    assert rows.groups[0] == rows.groups[2] != rows.groups[1]
    assert rows.tensors(np.array([0, 2]))["input_ids"].tolist() == [[2, 4, 3], [2, 6, 3]]
    with pytest.raises(ValueError, match="attention mask"):
        rows.tensors(np.array([0, 1]))


def test_empty_and_absent_texts(folder: Path) -> None:
    assert tensors_of(rows_of(folder, [""]))["input_ids"].tolist() == [[2, 3]]
    assert rows_of(folder, [None]).refused[0].type == "NullValue"
    assert rows_of(folder, [None], on_null="skip").skipped.tolist() == [0]
    assert tensors_of(rows_of(folder, [None], on_null="fill=w1"))["input_ids"].tolist() == [[2, 5, 3]]
    assert reasons(rows_of(folder, ["", "w1"], with_(special_tokens=False))) == {0: "column 'text' has no token"}


def test_text_that_is_no_utf8_is_one_bad_row(folder: Path) -> None:
    broken = pa.Array.from_buffers(
        pa.string(), 2, [None, pa.py_buffer(np.array([0, 2, 4], np.int32)), pa.py_buffer(b"w1\xff\xfe")]
    )
    table = one(broken, name="text")
    rows = preparation(folder, table.schema).prepare(table)
    assert rows.good.tolist() == [0]
    assert "is no UTF-8" in reasons(rows)[1]


@given(texts=st.lists(st.text(max_size=30), max_size=6))
def test_any_text_is_what_the_tokenizer_makes_of_it(folder: Path, texts: list[str]) -> None:
    plain = tokenizers.Tokenizer.from_file(str(folder / "tokenizer.json"))
    plain.no_padding()
    plain.no_truncation()
    rows = rows_of(folder, list(texts))
    for index, text in enumerate(texts):
        assert rows.tensors(np.array([index]))["input_ids"].tolist() == [plain.encode(text).ids]


def test_the_column_may_be_called_otherwise(folder: Path) -> None:
    schema = pa.schema([("id", pa.int64()), ("body", pa.string())])
    assert preparation(folder, schema).columns == ("body",)
    two = pa.schema([("title", pa.string()), ("body", pa.string())])
    with pytest.raises(ColumnMismatch, match=r"no column is the text 'text'.*say which with --map"):
        preparation(folder, two)
    assert preparation(folder, two, mapping={"title": "text"}).columns == ("title",)
    assert preparation(folder, two, mapping={"title": "input_ids"}).columns == ("title",)
    with pytest.raises(ColumnMismatch, match="column 'text' is int64, but text is wanted"):
        preparation(folder, pa.schema([("text", pa.int64())]))


def test_token_ids_that_are_there_already_are_taken_as_they_are(folder: Path) -> None:
    table = pa.RecordBatch.from_pydict({spec.name: [[1, 2], [3, 4]] for spec in INPUTS})
    rows = preparation(folder, table.schema).prepare(table)
    assert tensors_of(rows)["input_ids"].tolist() == [[1, 2], [3, 4]]


def test_a_file_that_is_no_tokenizer_is_named(tmp_path: Path) -> None:
    (tmp_path / "tokenizer.json").write_text(json.dumps({"model": 1}), "utf-8")
    with pytest.raises(PackageError, match=r"tokenizer.json can't be read as a tokenizer.json"):
        rows_of(tmp_path, ["w0"])


def test_encoding_needs_no_network_and_no_threads() -> None:
    code = "\n".join([
        "import os; [os.environ.pop(name, None) for name in ('HF_HUB_OFFLINE', 'TOKENIZERS_PARALLELISM')]",
        "import headrace.bulk.columns.text.encoding as encoding, sys",
        "assert 'tokenizers' not in sys.modules",
        "from pathlib import Path",
        "try: encoding._load(Path('/nowhere'), 1)",
        "except Exception: pass",
        "assert os.environ['HF_HUB_OFFLINE'] == '1' and os.environ['TOKENIZERS_PARALLELISM'] == 'false'",
    ])  # fmt: skip
    subprocess.run([sys.executable, "-c", code], check=True)
