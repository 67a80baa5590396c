"""Bare loops: pyarrow, the same ONNX Runtime session, Parquet; nothing of headrace. One process a run.

python bare.py digits IN.parquet OUT.parquet --model model.onnx --batch-rows 64 --threads 1
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime as ort
import pyarrow as pa
import pyarrow.parquet as pq

#: Rows that are read and written at once; what is done once for each then costs nothing.
READ_ROWS = 32_768

#: Rows of the row groups that are written.
GROUP_ROWS = 131_072


class Session:
    """A session that adds up how long its runs take."""

    def __init__(self, session: ort.InferenceSession) -> None:
        self._run = session.run
        self.seconds = 0.0

    def run(self, outputs: list[str], inputs: dict[str, Any]) -> list[Any]:
        began = time.perf_counter()
        found: list[Any] = self._run(outputs, inputs)
        self.seconds += time.perf_counter() - began
        return found


def session(model: str, threads: int) -> Session:
    """Open a session as a worker of headrace does."""
    options = ort.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    return Session(ort.InferenceSession(model, options, providers=["CPUExecutionProvider"]))


class Out:
    """A Parquet file in zstd-3, in row groups of `GROUP_ROWS`."""

    def __init__(self, path: str) -> None:
        self._path = path
        self._writer: pq.ParquetWriter | None = None
        self._pending: list[pa.RecordBatch] = []
        self._rows = 0

    def write(self, columns: dict[str, pa.Array]) -> None:
        batch = pa.RecordBatch.from_pydict(columns)
        self._pending.append(batch)
        self._rows += len(batch)
        if self._rows >= GROUP_ROWS:
            self._flush()

    def _flush(self) -> None:
        table = pa.Table.from_batches(self._pending)
        if self._writer is None:
            kept = [field.name for field in table.schema if not pa.types.is_fixed_size_list(field.type)]
            self._writer = pq.ParquetWriter(
                self._path, table.schema, compression="zstd", compression_level=3, use_dictionary=kept,
                write_statistics=kept,
            )  # fmt: skip
        self._writer.write_table(table, row_group_size=GROUP_ROWS)
        self._pending, self._rows = [], 0

    def close(self) -> None:
        if self._rows:
            self._flush()
        if self._writer is not None:
            self._writer.close()


def vectors(rows: np.ndarray[Any, Any]) -> pa.Array:
    """Return rows of numbers as fixed-size lists."""
    return pa.FixedSizeListArray.from_arrays(pa.array(rows.reshape(-1)), rows.shape[1])


def batches(rows: int, size: int) -> Iterator[slice]:
    """Yield the slices of batches."""
    for start in range(0, rows, size):
        yield slice(start, min(start + size, rows))


def classified(model: Session, ids: pa.Array, images: np.ndarray[Any, Any], batch_rows: int) -> dict[str, pa.Array]:
    """Return the columns of images of digits."""
    found = [model.run(["label", "scores"], {"image": images[at]}) for at in batches(len(images), batch_rows)]
    label, scores = (np.concatenate(each) for each in zip(*found, strict=True))
    best = scores[np.arange(len(scores)), scores.argmax(axis=1)]
    return {"id": ids, "label": pa.array(label), "scores": vectors(scores), "score": pa.array(best)}


def digits(options: argparse.Namespace, model: Session) -> int:
    """Score a column of images of 8 by 8 pixels."""
    out, total = Out(options.output), 0
    for batch in pq.ParquetFile(options.input).iter_batches(READ_ROWS, columns=["id", "image"]):
        images = batch.column("image").flatten().to_numpy().reshape(-1, 1, 8, 8)
        out.write(classified(model, batch.column("id"), images, options.batch_rows))
        total += len(images)
    out.close()
    return total


def tokenizer(options: argparse.Namespace) -> Any:
    """Return the tokenizer beside the model."""
    from tokenizers import Tokenizer

    found = Tokenizer.from_file(str(Path(options.model).parent / "tokenizer.json"))
    found.no_padding()
    found.enable_truncation(options.tokens)
    return found


def embedded(model: Session, tokens_of: Any, texts: list[str], batch_rows: int) -> np.ndarray[Any, Any]:
    """Return a vector for each text; those of similar length run together, padded to the longest."""
    ids = [each.ids for each in tokens_of.encode_batch_fast(texts)]
    lengths = np.array([len(each) for each in ids])
    order = np.argsort(lengths, kind="stable")
    embeddings = np.empty((0, 0), np.float32)
    for at in batches(len(order), batch_rows):
        which = order[at]
        mask = np.arange(lengths[which].max()) < lengths[which][:, None]
        tokens = np.zeros(mask.shape, np.int64)
        tokens[mask] = np.concatenate([np.array(ids[row], np.int64) for row in which])
        (found,) = model.run(["embedding"], {"input_ids": tokens, "attention_mask": mask.astype(np.int64)})
        if not len(embeddings):
            embeddings = np.empty((len(order), found.shape[1]), np.float32)
        embeddings[which] = found
    return embeddings


def sentences(options: argparse.Namespace, model: Session) -> int:
    """Embed a column of text: all at once, so that batches are as even as they can be."""
    table = pq.read_table(options.input, columns=["id", "text"])
    embeddings = embedded(model, tokenizer(options), table.column("text").to_pylist(), options.batch_rows)
    out = Out(options.output)
    out.write({"id": table.column("id").combine_chunks(), "embedding": vectors(embeddings)})
    out.close()
    return len(embeddings)


def images(options: argparse.Namespace, model: Session) -> int:
    """Classify the JPEG files of a folder: resize, crop, scale, normalise."""
    mean, std = np.array(options.mean, np.float32), np.array(options.std, np.float32)
    scale, shift = (1 / (255 * std)).reshape(3, 1, 1), (-mean / std).reshape(3, 1, 1)
    files = sorted(Path(options.input).iterdir())
    out = Out(options.output)
    decoded = Decoder(options)
    for at in batches(len(files), options.batch_rows):
        rows = np.empty((len(files[at]), 3, options.side, options.side), np.float32)
        for row, pixels in zip(rows, decoded(files[at]), strict=True):
            np.add(pixels.transpose(2, 0, 1) * scale, shift, out=row)
        (scores,) = model.run(["scores"], {"image": rows})
        out.write({"path": pa.array([str(file) for file in files[at]]), "scores": vectors(scores)})
    out.close()
    return len(files)


class Decoder:
    """Decodes files, resizes the shorter side and cuts the centre out, as torchvision's Resize and CenterCrop do."""

    def __init__(self, options: argparse.Namespace) -> None:
        self._resize, self._side = options.resize, options.side
        self._map: Any = ThreadPoolExecutor(options.threads).map if options.threads > 1 else map

    def __call__(self, files: list[Path]) -> list[np.ndarray[Any, Any]]:
        return list(self._map(self._one, files))

    def _one(self, file: Path) -> np.ndarray[Any, Any]:
        from PIL import Image

        with Image.open(file) as image:
            width, height = image.size
            short = min(width, height)
            size = (int(self._resize * width / short), int(self._resize * height / short))
            left, top = round((size[0] - self._side) / 2), round((size[1] - self._side) / 2)
            square = (left, top, left + self._side, top + self._side)
            return np.asarray(image.convert("RGB").resize(size, Image.Resampling.BILINEAR).crop(square))


def main() -> None:
    """Run a loop and print what it took."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("loop", choices=("digits", "sentences", "images"))
    parser.add_argument("input")
    parser.add_argument("output")
    parser.add_argument("--model", required=True)
    parser.add_argument("--batch-rows", type=int, default=64)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--tokens", type=int, default=256)
    parser.add_argument("--resize", type=int, default=72)
    parser.add_argument("--side", type=int, default=64)
    parser.add_argument("--mean", type=float, nargs=3, default=(0.485, 0.456, 0.406))
    parser.add_argument("--std", type=float, nargs=3, default=(0.229, 0.224, 0.225))
    options = parser.parse_args()
    os.environ["TOKENIZERS_PARALLELISM"] = "true" if options.threads > 1 else "false"
    os.environ["RAYON_NUM_THREADS"] = str(options.threads)
    pa.set_cpu_count(options.threads)
    model = session(options.model, options.threads)
    began, cpu = time.perf_counter(), time.process_time()
    rows = {"digits": digits, "sentences": sentences, "images": images}[options.loop](options, model)
    seconds = time.perf_counter() - began
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    cpu_s = time.process_time() - cpu
    print(json.dumps({
        "rows": rows, "seconds": seconds, "infer_s": model.seconds, "cpu_s": cpu_s, "peak_mib": peak,
    }))  # fmt: skip


if __name__ == "__main__":
    main()
