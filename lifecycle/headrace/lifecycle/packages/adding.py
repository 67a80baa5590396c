"""Makes a package of a model file: reads what it declares, tries it out, and writes down what the trial showed."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final, Literal, TypedDict, Unpack

import msgspec
import numpy as np

from headrace.contracts import ModelPackage, PackageError, TensorSpec, read_package
from headrace.contracts.errors import quoted
from headrace.contracts.package.image_recipe import ImageDecode
from headrace.contracts.package.manifest import (
    BatchingAdvice,
    Constant,
    Manifest,
    StoreAdvice,
    check_name,
    sha256_of,
    write_manifest,
)
from headrace.lifecycle.packages.declared import DeclaredModel, DeclaredTensor
from headrace.lifecycle.packages.formats.kinds import take_in
from headrace.lifecycle.packages.preprocessing import with_decoding, with_tokenizer
from headrace.lifecycle.packages.trial.decision import decide
from headrace.lifecycle.packages.trial.given_sample import check_sample, read_sample
from headrace.lifecycle.packages.trial.proof import Terms
from headrace.lifecycle.packages.trial.runs import Seen
from headrace.lifecycle.packages.trial.specs import input_specs, output_specs
from headrace.lifecycle.packages.trial.verdict import Question, Verdict
from headrace.runtimes.loading import load_model

#: Rows of more numbers are stored as bytes. Encoded and decoded, without Postgres, 4,096 numbers take 0.4 ms as JSON
#: and 0.006 ms as bytes, 750,000 numbers 163 ms and 0.15 ms; below half a millisecond, what SQL can read is worth more.
_JSON_NUMBERS: Final = 4096


class PackageOptions(TypedDict, total=False):
    """Options of `add_model` that a file doesn't declare, with their defaults.

    name: of the model (the file's name). version: (the highest whole number so far, plus one). labels: class names
    in the order of an output's last dimension (those in the file). max_rows: most rows of a batch (64). max_wait_ms:
    longest wait for more requests (2). allow_nan: whether inputs may hold NaN and infinity (yes).
    rows_at: tensor → the dimension that holds its rows (found by trial). constants: input → value that the package
    sets. row_sizes: the numbers of rows to run (those that the file takes). independent_rows: whether requests may
    share a run (found by trial). sample: a file of real rows for the trial, .npz or .json (made rows). store: "json" or
    "binary" (by size). keep: outputs to store (all). decode: input → how bulk jobs make it of images (not at all).
    tokenizer: the tokenizer.json by which bulk jobs make inputs of text (none).
    provenance: how the model came to be; added to what the file says of itself.
    """

    name: str | None
    version: str | None
    labels: Sequence[str]
    max_rows: int
    max_wait_ms: float
    allow_nan: bool
    rows_at: Mapping[str, int]
    constants: Mapping[str, object]
    row_sizes: Sequence[int]
    independent_rows: bool | None
    sample: Path | None
    store: Literal["json", "binary"] | None
    keep: Sequence[str]
    decode: Mapping[str, ImageDecode]
    tokenizer: Path | None
    provenance: dict[str, Any]


def describe(file: Path, folder: Path, **options: Unpack[PackageOptions]) -> ModelPackage:
    """Make a package of a model file in a folder of its own, outside any model directory; its version is 0.

    Raises PackageError naming what is wrong with the file or an option and how to mend it.
    """
    name = check_name("model name", options.get("name") or _name_from(file))
    declared = take_in(file, folder, sample=options.get("sample"))
    constants = _constants(declared, {**_empty(declared), **(options.get("constants") or {})})
    fixed = {each.name for each in constants}
    asked = msgspec.structs.replace(
        declared, inputs=tuple(tensor for tensor in declared.inputs if tensor.name not in fixed)
    )
    if not asked.inputs:
        raise PackageError("every input is set, so there is nothing to ask the model; leave one for requests")
    draft = Manifest(
        name=name,
        version="0",
        runtime=declared.runtime,
        file=declared.file,
        sha256=sha256_of(folder / declared.file),
        inputs=tuple(map(_anything, asked.inputs)),
        outputs=tuple(map(_anything, asked.outputs)),
        constants=constants,
        files={each: sha256_of(folder / each) for each in declared.files},
        labels=tuple(options.get("labels") or declared.labels),
        provenance={**declared.facts, **options.get("provenance", {})},
    )
    verdict = _tried(folder, draft, asked, options)
    manifest = _complete(draft, asked, verdict, options)
    check_labels(manifest)
    manifest = with_decoding(manifest, options.get("decode") or {})
    if tokenizer := options.get("tokenizer"):
        manifest = with_tokenizer(manifest, folder, tokenizer)
    write_manifest(folder, manifest)
    package = read_package(folder)
    # Runtimes compare the file with what the package says of it.
    load_model(package, "cpu", 1).close()
    return package


def notes_of(package: ModelPackage) -> list[str]:
    """Return the notes on a package's trial for a person, one line each."""
    trial = package.manifest.provenance.get("trial")
    note = trial.get("note") if isinstance(trial, dict) else None
    return [str(note)] if note else []


def check_labels(manifest: Manifest) -> None:
    """Refuse labels whose number no output has as its last dimension. Raises PackageError."""
    count = len(manifest.labels)
    if count and not any(spec.shape and spec.shape[-1] in {-1, count} for spec in manifest.outputs):
        outputs = "; ".join(spec.describe() for spec in manifest.outputs)
        raise PackageError(f"{count} labels fit no output, whose last dimension would be {count}; outputs: {outputs}")


def _name_from(file: Path) -> str:
    place = file.resolve() if file.is_dir() else file
    # TensorFlow Serving keeps the versions of a model in folders called 1, 2 ….
    name = place.parent.name if file.is_dir() and place.name.isdecimal() else place.stem
    return name_from(name)


def name_from(text: str) -> str:
    """Return a text as a model may be called."""
    return re.sub(r"[^A-Za-z0-9_-]+", "-", text).strip("-_") or "model"


def _anything(tensor: DeclaredTensor) -> TensorSpec:
    """Return a spec that any tensor of the datatype and rank fits: the trial finds out the rest."""
    rank = 0 if tensor.dims is None else len(tensor.dims) + tensor.sequence
    return TensorSpec(
        name=tensor.name,
        datatype=tensor.datatype,
        shape=(-1,) * rank,
        any_shape=tensor.dims is None,
        per_request=True,
        optional=tensor.optional,
        sequence=tensor.sequence,
    )


def _constants(declared: DeclaredModel, values: Mapping[str, object]) -> tuple[Constant, ...]:
    tensors = {tensor.name: tensor for tensor in declared.inputs}
    unknown = [name for name in values if name not in tensors]
    if unknown:
        raise PackageError(f"--set names {quoted(unknown[0])}, but the model's inputs are {', '.join(tensors)}")
    return tuple(_constant(tensors[name], value) for name, value in values.items())


def _empty(declared: DeclaredModel) -> dict[str, object]:
    """Return the value of each input that can have one only, since one of its sizes is 0."""
    shapes = {tensor.name: tensor.dims for tensor in declared.inputs if tensor.dims and 0 in tensor.dims}
    return {name: np.empty([int(size or 0) for size in dims]).tolist() for name, dims in shapes.items()}


def _constant(tensor: DeclaredTensor, value: object) -> Constant:
    dims = tensor.dims or ()
    if not isinstance(value, list | tuple):
        # A number for a tensor such as [1] is that number in each place.
        for size in reversed(dims):
            value = [value] * size if isinstance(size, int) else value
    constant = Constant(name=tensor.name, datatype=tensor.datatype, value=value)
    shape = constant.array().shape
    if tensor.dims is not None and not tensor.sequence and not _fits(tensor.dims, shape):
        wanted = ", ".join("?" if size is None else str(size) for size in tensor.dims)
        raise PackageError(f"--set gives {tensor.name!r} the shape {list(shape)}, but the model takes [{wanted}]")
    return constant


def _fits(dims: Sequence[int | str | None], shape: tuple[int, ...]) -> bool:
    pairs = zip(dims, shape, strict=False)
    return len(dims) == len(shape) and all(not isinstance(want, int) or want == have for want, have in pairs)


def _tried(folder: Path, draft: Manifest, asked: DeclaredModel, options: PackageOptions) -> Verdict:
    sample = read_sample(options.get("sample"), asked)
    if sample:
        check_sample(sample, asked)
    question = Question(
        rows_at=dict(options.get("rows_at") or {}),
        row_sizes=tuple(options.get("row_sizes") or ()),
        independent=options.get("independent_rows"),
        terms=Terms(allow_nan=options.get("allow_nan", True), max_rows=options.get("max_rows", 64)),
        sample=sample,
        graph=asked.graph,
    )
    write_manifest(folder, draft)
    model = load_model(read_package(folder), "cpu", 0)
    try:
        verdict = decide(asked, model, question)
    finally:
        model.close()
    if sample and verdict.outcome == "undecided":
        raise PackageError(
            f"the model can't run the sample {options['sample']}: {verdict.why}; give inputs that it takes"
        )
    return verdict


def _complete(draft: Manifest, asked: DeclaredModel, verdict: Verdict, options: PackageOptions) -> Manifest:
    allow_nan = options.get("allow_nan", True)
    inputs = input_specs(asked.inputs, verdict.layout, verdict.seen, allow_nan=allow_nan, free=verdict.free)
    outputs = output_specs(
        asked.outputs,
        verdict.axes,
        inputs,
        verdict.seen,
        independent=verdict.independent,
        steered=verdict.steered,
    )
    sizes = verdict.layout.row_sizes if verdict.independent else ()
    _check_row_sizes(options.get("row_sizes") or (), verdict)
    most = options.get("max_rows", 64)
    keep = kept(outputs, options)
    store = options.get("store") or store_for(outputs, keep, verdict.seen)
    return msgspec.structs.replace(
        draft,
        inputs=inputs,
        outputs=outputs,
        batching=BatchingAdvice(
            max_rows=min(most, sizes[-1]) if sizes else most,
            max_wait_ms=options.get("max_wait_ms", 2.0),
            row_sizes=sizes,
            independent_rows=verdict.independent,
        ),
        store=StoreAdvice(outputs=store, keep=keep),
        provenance={**draft.provenance, "trial": _record(verdict, asked_rows=bool(options.get("rows_at")))},
    )


def _check_row_sizes(asked: Sequence[int], verdict: Verdict) -> None:
    """Refuse numbers of rows that the model doesn't run. Raises PackageError."""
    runs = verdict.layout.row_sizes
    if asked and verdict.independent and not set(asked) <= set(runs):
        raise PackageError(
            f"--row-sizes asks for {', '.join(map(str, asked))} rows, but the model runs exactly "
            f"{' or '.join(map(str, runs))}; leave it out"
        )
    if asked and verdict.outcome in {"no rows", "undecided"}:
        raise PackageError(
            f"the model runs no batch of {' or '.join(map(str, asked))} rows ({verdict.why or 'it has no rows'}); "
            "leave --row-sizes out"
        )


def kept(outputs: Sequence[TensorSpec], options: PackageOptions) -> tuple[str, ...]:
    """Return the outputs to keep. Raises PackageError for one that the model hasn't."""
    keep = tuple(options.get("keep") or ())
    unknown = [name for name in keep if name not in {spec.name for spec in outputs}]
    if unknown:
        known = ", ".join(spec.name for spec in outputs)
        raise PackageError(f"--keep names {quoted(unknown[0])}, but the model's outputs are {known}")
    return keep


def store_for(outputs: Sequence[TensorSpec], keep: Sequence[str], seen: Sequence[Seen]) -> Literal["json", "binary"]:
    """Return how rows are stored: in bytes where one row was seen to give many numbers."""
    kept = [spec for spec in outputs if not keep or spec.name in keep]
    largest = max(
        (
            sum(
                int(np.prod(run.outputs.get(spec.name, ()))) // (1 if spec.per_request else max(run.rows, 1))
                for spec in kept
            )
            for run in seen
        ),
        default=0,
    )
    return "binary" if largest > _JSON_NUMBERS else "json"


def _record(verdict: Verdict, *, asked_rows: bool) -> dict[str, Any]:
    """Return the record of its trial that a package keeps. asked_rows: whether a person said where rows are."""
    sizes: dict[str, int] = {}
    for run in verdict.seen[:1]:
        sizes = {symbol: size for symbol, size in run.sizes.items() if "[" not in symbol}
    record: dict[str, Any] = {"verdict": verdict.outcome, "rows_compared": verdict.rows}
    if sizes:
        record["sizes"] = sizes
    if verdict.why:
        record["why"] = verdict.why
    if verdict.slower:
        record["alone_takes_times"] = round(verdict.slower, 1)
    note = _note(verdict, asked_rows=asked_rows)
    return {**record, "note": note} if note else record


def _note(verdict: Verdict, *, asked_rows: bool) -> str:
    """Return the line for a person; empty when rows are independent and nothing need be said."""
    cost = ""
    if verdict.slower >= 1.2:
        cost = f", which takes about {verdict.slower:.0f} times as long as batches would"
    if verdict.outcome == "dependent":
        return f"rows depend on each other ({verdict.why}): each request runs alone{cost}; --batch overrides"
    if verdict.outcome == "no rows":
        if asked_rows:
            return "no output has an entry for each row where --rows-at says, so each request runs alone and whole"
        return "no dimension was found to hold rows: each request runs alone and whole; --rows-at A=0,B=1 names them"
    if verdict.outcome == "undecided":
        remedy = "; give real ones with --sample FILE" if verdict.sample_helps else ""
        return (
            f"none of the trial's rows run ({verdict.why}), so nothing could be proven: each request runs alone{remedy}"
        )
    if verdict.outcome == "given" and verdict.independent and verdict.why:
        return f"requests share runs as you said, although the trial found that {verdict.why}"
    return ""
