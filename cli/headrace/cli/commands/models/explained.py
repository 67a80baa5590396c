"""`model.toml` with one comment above each field; docs/model-packages.md has the same explanations as a table."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, Final

import tomli_w

from headrace.contracts.package.manifest import Manifest, manifest_fields

_TENSOR: Final = {
    "name": "As in the model file, and in requests and answers.",
    "datatype": "One of BOOL, UINT8 … UINT64, INT8 … INT64, FP16, FP32, FP64, BF16, BYTES (text).",
    "shape": "Sizes without that of the rows; -1 varies.",
    "rows_at": "Which dimension of the whole tensor holds the rows; 0 is the first.",
    "per_request": "Whether the tensor has no rows; requests share a run only where they agree on such an input.",
    "symbols": 'A name for each size that varies, "" for none; sizes of one name are equal throughout a request.',
    "optional": "Whether a request may leave the input out.",
    "sequence": "Whether the model takes or gives a list of tensors; requests hold it stacked, its length first.",
    "any_shape": "Whether the tensor may have any number of dimensions; `shape` is left out then.",
    "allow_nan": "Whether NaN and infinity may occur; otherwise requests with them are refused.",
    "sample_shape": "Sizes in place of `shape` that the model is known to run, for warm-up and profile.",
    "decode": "How bulk jobs make a row of an encoded image; without it rows are tensors.",
}

_DECODE: Final = {
    "resize": "Length of the shorter side in pixels, or [height, width]; 0 leaves the size.",
    "crop": "Side of the centred square that is cut out, or [height, width]; 0 cuts nothing.",
    "interpolation": "Filter of resizing, antialiased: nearest, box, bilinear, hamming, bicubic or lanczos.",
    "channels": "What pixels are: rgb, bgr or gray.",
    "scale": "Multiplies each pixel of 0 to 255.",
    "mean": "Subtracted after that: a number for each channel, or one.",
    "std": "Divides after that: a number for each channel, or one.",
    "exif": "Whether the image is turned as its EXIF orientation says.",
}

#: Field of model.toml, by its path → what it means. Outputs have the fields of inputs.
EXPLANATIONS: Final = {
    "name": "Name of the model; clients ask for it.",
    "version": "Never changes once it is served.",
    "runtime": "What runs the file: onnxruntime, torch, openvino, litert, tvm; or a server's protocol: tfserving, oip.",
    "file": "The model file, relative to this folder.",
    "sha256": "Its checksum; a worker refuses another file.",
    "labels": "Class names, in the order of an output's last dimension.",
    "inputs": "What a request holds, in the order of the file; constants are left out.",
    **{f"inputs.{field}": text for field, text in _TENSOR.items()},
    **{f"inputs.decode.{field}": text for field, text in _DECODE.items()},
    "outputs": "What an answer holds, in the order of the file; each has the fields of an input.",
    **{f"outputs.{field}": text for field, text in _TENSOR.items()},
    "constants": "Inputs of the file that the package sets (`--set`); no request holds them.",
    "constants.name": "The input's name in the file.",
    "constants.datatype": "The input's datatype.",
    "constants.value": "The whole tensor: a number, text, true or false, or nested lists of them.",
    "files": "What the model file needs beside it, such as weights, with the checksum of each.",
    "server": "The model server that computes the batches, in place of a model file.",
    "server.endpoints": "Addresses of servers that have the model: grpc://, grpcs://, http:// or https://HOST:PORT.",
    "server.model": "The model's name on the server.",
    "server.version": 'Which version answers; "" leaves it to the server.',
    "server.label": "A label of TensorFlow Serving in place of a version.",
    "server.signature_name": "The signature of a SavedModel.",
    "server.flavor": 'Of TorchServe: "torchserve" (OIP over gRPC), "torchserve-rest", "torchserve-json".',
    "server.max_in_flight": "Batches at the same time on one endpoint; 0 finds out what pays.",
    "server.credentials": "NAME of the setting HEADRACE_SERVER_CREDENTIALS_NAME, which holds the credentials.",
    "server.allow_new_signature": "Whether workers go by the tensors of a reloaded model; else requests fail.",
    "server.nan": '"refuse" fails requests whose outputs hold NaN or infinity.',
    "tokenizer": "How bulk jobs make inputs of text.",
    "tokenizer.file": "A tokenizer.json, relative to this folder; its checksum is in [files].",
    "tokenizer.ids": "The input that takes the token ids.",
    "tokenizer.attention_mask": 'The input that tells tokens (1) from padding (0); "" if there is none.',
    "tokenizer.type_ids": 'The input that takes the ids of the sequence; "" if there is none.',
    "tokenizer.column": "What the text is called among the columns of a bulk job.",
    "tokenizer.max_length": "Most tokens of a text, special ones included; 0 is as many as the input takes.",
    "tokenizer.pad_id": "Id of the token that shorter texts of a batch are filled up with.",
    "tokenizer.pad_token": "That token itself, in place of its id.",
    "tokenizer.pad_multiple": "Texts are filled up to a multiple of this number of tokens.",
    "tokenizer.special_tokens": "Whether the tokenizer adds tokens such as [CLS].",
    "batching": "How a worker forms batches for this model.",
    "batching.max_rows": "Most rows in one batch.",
    "batching.max_wait_ms": "Longest time that a request waits for others to share its batch, where waiting pays.",
    "batching.row_sizes": "If given, the model runs these numbers of rows only; batches are padded to the next one.",
    "batching.independent_rows": "Whether rows never depend on others of a batch; if they do, each request runs alone.",
    "batching.seconds_fixed": "Measured by `headrace models profile`: what a run takes besides its rows; 0 is unknown.",
    "batching.seconds_per_row": "Measured: what each row adds to that.",
    "batching.threads": "The threads that both were measured with; 0 is unknown.",
    "batching.measured_on": "The processor that both were measured on.",
    "store": "What is kept of an answer, and how.",
    "store.outputs": '"json" can be read in SQL; "binary" keeps exact bytes and is quicker for large outputs.',
    "store.keep": "The outputs that are stored and returned, by name; all of them if empty.",
    "provenance": "How the model came to be: its source, how it was compressed, tried out and measured.",
}


def explained_toml(manifest: Manifest) -> str:
    """Write a manifest as TOML, each field explained where it first appears."""
    document = manifest_fields(manifest)
    tables = {key: value for key, value in document.items() if _is_table(value)}
    lines: list[str] = []
    for key, value in document.items():
        if key not in tables:
            lines += [f"# {EXPLANATIONS[key]}", _assignment(key, value)]
    told: set[str] = set()
    for key, value in tables.items():
        lines += ["", f"# {EXPLANATIONS[key]}"]
        if key == "provenance":
            lines.append(tomli_w.dumps({key: value}).rstrip())
        elif isinstance(value, list):
            for item in value:
                lines += [f"[[{key}]]", *_fields(key, item, told), ""]
            lines.pop()
        else:
            lines += [f"[{key}]", *_fields(key, value, told)]
    return "\n".join(lines) + "\n"


def _is_table(value: object) -> bool:
    return isinstance(value, dict) or (isinstance(value, list) and bool(value) and isinstance(value[0], dict))


def _fields(table: str, item: Mapping[str, Any], told: set[str]) -> Iterator[str]:
    # A table inside comes last: what follows it would be its own.
    for key, value in sorted(item.items(), key=lambda field: isinstance(field[1], dict)):
        text = EXPLANATIONS.get(f"{table}.{key}", "")
        inside = isinstance(value, dict) and table == "inputs"
        if inside:
            yield ""
        if text and text not in told:
            told.add(text)
            yield f"# {text}"
        if inside:
            yield f"[{table}.{key}]"
            yield from _fields(f"{table}.{key}", value, told)
        else:
            yield _assignment(key, value)


def _assignment(key: str, value: object) -> str:
    """Write one field; lists of plain values on one line."""
    if isinstance(value, list) and not any(isinstance(item, dict) for item in value):
        name, _, _ = tomli_w.dumps({key: 0}).partition(" = ")
        return f"{name} = {_inline(value)}"
    return tomli_w.dumps({key: value}).rstrip()


def _inline(value: object) -> str:
    if isinstance(value, list):
        return f"[{', '.join(map(_inline, value))}]"
    return tomli_w.dumps({"value": value}).rstrip().removeprefix("value = ")
