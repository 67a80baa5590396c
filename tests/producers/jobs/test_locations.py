"""Inputs and outputs in canonical form: absolute, without credentials, apart from each other."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from headrace.contracts.errors import InvalidRequest
from headrace.producers.jobs.locations import canonical_input, canonical_output, check_apart, default_output

HERE = Path("/data/here")


@pytest.mark.parametrize(
    ("text", "canonical"),
    [
        ("a.parquet", "/data/here/a.parquet"),
        ("./sub/../a b é.csv", "/data/here/a b é.csv"),
        ("/abs/x/", "/abs/x"),
        ("../*.parquet", "/data/*.parquet"),
        ("file:///abs/x.csv", "/abs/x.csv"),
        ("s3://bucket/folder/", "s3://bucket/folder"),
        ("s3://bucket/", "s3://bucket/"),
        ("hf://datasets/x", "hf://datasets/x"),
        ("sql: SELECT 1 ; ", "sql:SELECT 1"),
    ],
)
def test_inputs_become_absolute_at_once(text: str, canonical: str) -> None:
    assert canonical_input(text, HERE) == canonical


@given(st.from_regex(r"[a-z./*-]{1,20}", fullmatch=True).filter(lambda text: text.strip() not in {"", "-"}))
def test_what_is_canonical_stays_as_it_is(text: str) -> None:
    once = canonical_input(text, HERE)
    assert canonical_input(once, Path("/elsewhere")) == once


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("-", "standard input"),
        ("  ", "empty"),
        ("sql:  ;", "no query"),
        ("@missing.sql", "can't be read"),
        ("file://relative", "absolute"),
        ("s3://key:secret@bucket/x", "credentials"),
        ("s3://key@bucket/x", "credentials"),
        ("https://host/x.csv?X-Amz-Date=1&X-Amz-Signature=secret", "credentials"),
        ("az://container/x.csv?sv=1&sig=secret", "credentials"),
        ("postgresql://u:p@h/db", "sql:SELECT"),
        ("s3://[bad", "malformed"),
    ],
)
def test_an_input_that_workers_could_not_use_is_refused(text: str, reason: str) -> None:
    with pytest.raises(InvalidRequest, match=reason) as refused:
        canonical_input(text, HERE)
    assert "secret" not in refused.value.message


def test_a_query_is_read_from_a_file(tmp_path: Path) -> None:
    (tmp_path / "q.sql").write_text("SELECT a\nFROM t;\n")
    assert canonical_input("@q.sql", tmp_path) == "sql:SELECT a\nFROM t"


@pytest.mark.parametrize(
    ("canonical", "name"),
    [
        ("/x/reviews.parquet", "reviews-m.scores"),
        ("/x/reviews.csv.gz", "reviews-m.scores"),
        ("/x/2024/*.parquet", "2024-m.scores"),
        ("s3://bucket/a b/", "a-b-m.scores"),
        ("s3://bucket/*.csv", "bucket-m.scores"),
        ("sql:SELECT 1", "query-m.scores"),
        ("/*.csv", "input-m.scores"),
    ],
)
def test_an_output_that_nobody_named_is_called_after_input_and_model(canonical: str, name: str) -> None:
    assert default_output([canonical], "m", HERE) == f"/data/here/{name}"


def test_an_output_is_one_folder_or_the_store() -> None:
    assert canonical_output("store", HERE) == "store"
    assert canonical_output("out", HERE) == "/data/here/out"
    for text in ("-", " ", "out/*"):
        with pytest.raises(InvalidRequest):
            canonical_output(text, HERE)


@pytest.mark.parametrize(
    ("inputs", "output", "apart"),
    [
        (["/x/in"], "/x/in", False),
        (["/x/in"], "/x/in/out", False),
        (["/x/in"], "/x/in-out", True),
        (["/x/in/*.csv"], "/x/in/out", False),
        (["/x/a.csv"], "/x", True),
        (["s3://b/in"], "s3://b/in/out", False),
        (["sql:SELECT 1"], "/x", True),
    ],
)
def test_an_output_inside_the_input_is_refused(inputs: list[str], output: str, apart: bool) -> None:
    if apart:
        check_apart(inputs, output)
    else:
        with pytest.raises(InvalidRequest, match="choose another --output"):
            check_apart(inputs, output)
