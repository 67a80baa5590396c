"""(b) MiniLM embeddings of real sentences, which the worker turns into tokens."""

from __future__ import annotations

import argparse
import os
import shutil
import sys
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
from benchmarks.bulk_parts.contest import bare_loop, contest
from benchmarks.bulk_parts.sentences_text import ROOT, sentences
from benchmarks.bulk_parts.stage import Stage

from headrace.contracts.package.manifest import BatchingAdvice, Manifest, sha256_of, write_manifest
from headrace.contracts.package.signature import TensorSpec
from headrace.contracts.package.text_recipe import Tokenizer

#: Tokens of a sentence at most; none of the sentences has as many.
TOKENS = 256


def source(folder: Path, count: int) -> Path:
    """Write the sentences: `id` and `text`."""
    file = folder / f"sentences-{count}.parquet"
    if not file.exists():
        folder.mkdir(parents=True, exist_ok=True)
        text = sentences(count)
        pq.write_table(pa.table({"id": pa.array(range(count)), "text": pa.array(text)}), file, row_group_size=10_000)
    return file


def package(data: Path, models: Path, batch_rows: int) -> Path:
    """Write the package, with the ONNX file that is made once; return that file."""
    sys.path.insert(0, str(ROOT / "examples/minilm"))
    from network import TOKENIZER, model_folder
    from prepare import KNOWN, export, tokenised  # type: ignore[import-not-found]

    weights = model_folder()
    made = data / "minilm.onnx"
    if not made.exists():
        export(f"{ROOT / 'examples/minilm/network.py'}:pretrained", tokenised(weights, list(KNOWN) * 2), made)
    folder = models / "minilm" / "1"
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    for origin, name in ((made, "model.onnx"), (weights / TOKENIZER, "tokenizer.json")):
        os.link(origin, folder / name) if origin == made else shutil.copyfile(origin, folder / name)
    write_manifest(
        folder,
        Manifest(
            name="minilm",
            version="1",
            runtime="onnxruntime",
            file="model.onnx",
            sha256=sha256_of(folder / "model.onnx"),
            files={"tokenizer.json": sha256_of(folder / "tokenizer.json")},
            inputs=tuple(
                TensorSpec(name=each, datatype="INT64", shape=(-1,)) for each in ("input_ids", "attention_mask")
            ),
            outputs=(TensorSpec(name="embedding", datatype="FP32", shape=(384,)),),
            tokenizer=Tokenizer(
                file="tokenizer.json", ids="input_ids", attention_mask="attention_mask", max_length=TOKENS
            ),
            batching=BatchingAdvice(max_rows=batch_rows),
        ),
    )
    return folder / "model.onnx"


def prepare(stage: Stage, options: argparse.Namespace) -> tuple[Path, Path]:
    """Return the sentences and the ONNX file."""
    return source(stage.data, options.sentences), package(stage.data, stage.models, options.sentences_batch_rows)


def run(stage: Stage, options: argparse.Namespace) -> dict[str, Any]:
    """Let headrace and the bare loop take turns."""
    text, model = prepare(stage, options)
    more = ["--batch-rows", str(options.sentences_batch_rows), "--tokens", str(TOKENS)]
    return contest(stage, options, "minilm", text, bare_loop(stage, "sentences", text, model, more), keep=["id"])
