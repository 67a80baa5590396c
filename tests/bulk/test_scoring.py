"""A model as a function of record batches, with real models."""

from __future__ import annotations

import multiprocessing
import pickle
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd  # type: ignore[import-untyped]
import pyarrow as pa
import pytest
import tokenizers
from tests.bulk.small_models import add_model_m, package

import headrace.bulk
from headrace.bulk.columns.base import ColumnMismatch
from headrace.bulk.scoring import loaded
from headrace.bulk.scoring.run import ERROR
from headrace.bulk.scoring.scorer import Scorer
from headrace.contracts import HeadraceError, InputRefused, InvalidRequest, PackageError, TensorSpec, UnknownModel
from headrace.contracts.package.manifest import BatchingAdvice, ModelPackage
from headrace.contracts.package.text_recipe import Tokenizer
from headrace.runtimes.base import LoadedModel
from headrace.runtimes.loading import load_model

TEXT = """g (int64[n,t] input_ids, int64[n,t] attention_mask) => (int64[n,1] total) {
    real = Mul(input_ids, attention_mask)
    axis = Constant<value_ints = [1]>()
    total = ReduceSum(real, axis)
}"""


@pytest.fixture
def models(tmp_path: Path) -> Path:
    return add_model_m(tmp_path / "models")


@pytest.fixture
def score(models: Path) -> Iterator[Scorer]:
    made = headrace.bulk.scorer("m", models=models)
    yield made
    made.close()


def table(rows: int = 10) -> pa.Table:
    """Return rows of which those divisible by 3 are bad: by turns a null, and one that the model fails on."""
    x: list[Any] = [[float(row), 0.5] for row in range(rows)]
    at = [row % 10 for row in range(rows)]
    for row in range(0, rows, 3):
        if row % 2:
            x[row] = None
        else:
            at[row] = 99
    return pa.table({"id": pa.array(range(rows), pa.int32()), "x": x, "at": at})


def test_each_row_has_its_outputs_or_its_error(score: Scorer) -> None:
    found = score(table())
    assert found.schema.names == ["id", "y", "picked", "label", "score", ERROR]
    for row, result in enumerate(found.to_pylist()):
        assert result["id"] == row
        if row % 3:
            assert result[ERROR] is None
            assert (result["y"], result["picked"]) == ([2.0 * row, 1.0], row % 10)
            assert (result["label"], result["score"]) == ("a", 2.0 * row)
        else:
            assert result["y"] is None
            assert ("is null" in result[ERROR]) == bool(row % 2)
    assert found.schema.field("id").type == pa.int32()


def test_the_schema_is_known_before_any_row(score: Scorer) -> None:
    assert score.schema(table().schema) == score(table()).schema
    assert score(table(0)).schema == score.schema(table().schema)
    assert score(table(0)).num_rows == 0


def test_columns_fit_or_are_refused_before_any_row(score: Scorer) -> None:
    with pytest.raises(ColumnMismatch, match="--map"):
        score.schema(pa.schema([("id", pa.int64())]))


def test_batches_tables_and_frames_come_back_as_what_they_were(score: Scorer) -> None:
    expected = score(table()).to_pylist()
    batch = table().to_batches()[0]
    assert isinstance(score(batch), pa.RecordBatch)
    assert score(batch).to_pylist() == expected
    frames = list(score.map_in_pandas(iter([table(4).to_pandas(), table().to_pandas()])))
    assert [len(frame) for frame in frames] == [4, 10]
    assert isinstance(frames[1], pd.DataFrame)
    assert frames[1]["picked"].fillna(-1).tolist() == [
        -1 if row["picked"] is None else row["picked"] for row in expected
    ]
    columns = {"x": np.ones((3, 2), np.float32), "at": np.array([1, 2, 99])}
    assert score(columns).column("picked").to_pylist() == [1.0, 2.0, None]


def test_chunks_of_a_table_are_scored_as_one(score: Scorer) -> None:
    chunked = pa.concat_tables([table(3), table(5)])
    assert score(chunked).to_pylist() == [*score(table(3)).to_pylist(), *score(table(5)).to_pylist()]


def test_errors_may_raise_instead(models: Path) -> None:
    strict = headrace.bulk.scorer("m", models=models, errors="raise")
    assert strict(table().slice(1, 2)).column_names == ["id", "y", "picked", "label", "score"]
    with pytest.raises(InvalidRequest, match="NullValue: column 'x' is null"):
        strict(table().slice(3, 1))
    with pytest.raises(HeadraceError) as caught:
        strict(table().slice(6, 1))
    assert not isinstance(caught.value, InvalidRequest) or isinstance(caught.value, InputRefused)
    with pytest.raises(InvalidRequest, match="errors must be column or raise"):
        headrace.bulk.scorer("m", models=models, errors="ignore")  # type: ignore[arg-type]


def test_skipped_rows_are_left_out(models: Path) -> None:
    skipping = headrace.bulk.scorer("m", models=models, on_null="skip", keep=("id",), prefix="p_")
    found = skipping(table())
    assert found.column("id").to_pylist() == [0, 1, 2, 4, 5, 6, 7, 8]
    assert found.column_names == ["id", "p_y", "p_picked", "p_label", "p_score", ERROR]


def test_it_travels_to_other_processes_without_its_model(score: Scorer) -> None:
    expected = score(table()).to_pylist()
    packed = pickle.dumps(score)
    assert len(packed) < 1000
    assert pickle.loads(packed)(table()).to_pylist() == expected
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        assert pool.apply(score, (table(),)).to_pylist() == expected


def test_scorers_that_are_unpickled_for_each_task_share_one_model(
    score: Scorer, monkeypatch: pytest.MonkeyPatch
) -> None:
    loads = []

    def counted(package: ModelPackage, device: str, threads: int) -> LoadedModel:
        loads.append(package)
        return load_model(package, device, threads)

    monkeypatch.setattr(loaded, "load_model", counted)
    packed = pickle.dumps(score)
    for _ in range(3):
        pickle.loads(packed)(table())
    assert len(loads) == 1
    score.close()
    score(table())
    assert len(loads) == 2


def test_another_model_under_the_same_name_is_refused(score: Scorer, models: Path) -> None:
    packed = pickle.dumps(score)
    manifest = models / "m" / "1" / "model.toml"
    manifest.write_text(manifest.read_text().replace('sha256 = "', 'sha256 = "0', 1))
    with pytest.raises(PackageError, match="not the same model here"):
        pickle.loads(packed)
    shutil.rmtree(models / "m")
    with pytest.raises(UnknownModel):
        pickle.loads(packed)


def test_a_damaged_model_is_refused_when_it_is_loaded(score: Scorer, models: Path) -> None:
    (models / "m" / "1" / "model.onnx").write_bytes(b"x")
    with pytest.raises(PackageError, match="does not match its checksum"):
        score(table())


def test_texts_of_similar_length_run_together_and_come_back_in_order(tmp_path: Path) -> None:
    words = tokenizers.Tokenizer(
        tokenizers.models.WordLevel({"[UNK]": 0, **{f"w{n}": n for n in range(1, 50)}}, "[UNK]")
    )
    words.pre_tokenizer = tokenizers.pre_tokenizers.Whitespace()
    inputs = tuple(TensorSpec(name=name, datatype="INT64", shape=(-1,)) for name in ("input_ids", "attention_mask"))
    models = package(
        tmp_path / "models",
        TEXT,
        inputs,
        (TensorSpec(name="total", datatype="INT64", shape=(1,)),),
        beside={"tokenizer.json": words.to_str()},
        tokenizer=Tokenizer(file="tokenizer.json", ids="input_ids", attention_mask="attention_mask"),
        batching=BatchingAdvice(max_rows=3),
    )
    numbers = np.random.default_rng(0).integers(1, 50, size=(40, 12))
    lengths = np.random.default_rng(1).integers(1, 13, size=40)
    texts = [" ".join(f"w{n}" for n in row[:length]) for row, length in zip(numbers, lengths, strict=True)]
    found = headrace.bulk.scorer("m", models=models)(pa.table({"text": texts}))
    expected = [[int(row[:length].sum())] for row, length in zip(numbers, lengths, strict=True)]
    assert found.column("total").to_pylist() == expected
