"""Makes a package of a model on model servers: their description, completed by a small trial and by options."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Final, Unpack

import msgspec

from headrace.contracts import ModelPackage, PackageError, Settings, TensorSpec, load_settings, read_package
from headrace.contracts.package.manifest import (
    BatchingAdvice,
    Manifest,
    StoreAdvice,
    check_name,
    write_manifest,
)
from headrace.contracts.package.server import Server
from headrace.contracts.tensors.datatypes import FLOATS
from headrace.lifecycle.packages.adding import PackageOptions, check_labels, kept, name_from, store_for
from headrace.lifecycle.packages.preprocessing import with_decoding, with_tokenizer
from headrace.lifecycle.packages.servers.discovery import Discovered, connect, discover
from headrace.lifecycle.packages.servers.row_trial import (
    RowFindings,
    ServerModel,
    declared_by,
    layout_of,
    sample_shape,
    try_rows,
)
from headrace.lifecycle.packages.trial.given_sample import check_sample, read_sample

#: Most rows of a batch where neither the server nor a person says.
_USUAL_ROWS: Final = 64


def describe_remote(folder: Path, server: Server, runtime: str, **options: Unpack[PackageOptions]) -> ModelPackage:
    """Make a package of a model on servers in a folder of its own; its version is 0.

    runtime: "tfserving", "oip", or "" to find out. Raises PackageError naming what is wrong with the server or an
    option, ConfigurationError for credentials that are missing.
    """
    _check(options)
    name = check_name("model name", options.get("name") or name_from(server.model))
    settings = load_settings()
    found = discover(server, runtime, settings)
    findings = _tried(server, found, options, settings)
    manifest = Manifest(
        name=name,
        version="0",
        runtime=found.runtime,
        server=server,
        inputs=_inputs(found, findings, allow_nan=options.get("allow_nan", True)),
        outputs=found.signature.outputs,
        labels=tuple(options.get("labels") or ()),
        batching=_batching(found, findings, options),
        store=_store(found, findings, options),
        provenance={**_origin(found), **options.get("provenance", {}), "trial": _record(findings, options)},
    )
    check_labels(manifest)
    manifest = with_decoding(manifest, options.get("decode") or {})
    if tokenizer := options.get("tokenizer"):
        manifest = with_tokenizer(manifest, folder, tokenizer)
    write_manifest(folder, manifest)
    return read_package(folder)


def _check(options: PackageOptions) -> None:
    """Refuse options that tell of rows what is settled on servers."""
    for option, value in (("--rows-at", options.get("rows_at")), ("--set", options.get("constants"))):
        if value:
            raise PackageError(f"{option} is for model files; on a server each tensor has its rows first")


def _tried(server: Server, found: Discovered, options: PackageOptions, settings: Settings) -> RowFindings:
    declared = declared_by(found.signature, found.runtime)
    sample = read_sample(options.get("sample"), declared)
    if sample:
        check_sample(sample, declared)
    layout = layout_of(declared, tuple(options.get("row_sizes") or ()))
    model = ServerModel(connect(server, server.endpoints[0], found.runtime, settings), found.signature)
    try:
        return try_rows(declared, layout, model, sample)
    finally:
        model.close()


def _inputs(found: Discovered, findings: RowFindings, *, allow_nan: bool) -> tuple[TensorSpec, ...]:
    return tuple(
        msgspec.structs.replace(
            spec,
            allow_nan=allow_nan or spec.datatype not in FLOATS,
            sample_shape=sample_shape(spec.name, spec.shape, findings.seen),
        )
        for spec in found.signature.inputs
    )


def _batching(found: Discovered, findings: RowFindings, options: PackageOptions) -> BatchingAdvice:
    independent = options.get("independent_rows")
    if independent is None:
        independent = findings.verdict != "dependent"
    sizes = found.signature.row_sizes or tuple(options.get("row_sizes") or ())
    limits = [size for size in (found.most_rows, findings.most_rows, max(sizes, default=0)) if size]
    wanted = options.get("max_rows") or min(limits, default=_USUAL_ROWS)
    return BatchingAdvice(
        max_rows=min([wanted, *limits]),
        max_wait_ms=options.get("max_wait_ms", 2.0),
        row_sizes=sizes if independent else (),
        independent_rows=independent,
    )


def _store(found: Discovered, findings: RowFindings, options: PackageOptions) -> StoreAdvice:
    keep = kept(found.signature.outputs, options)
    outputs = found.signature.outputs
    return StoreAdvice(outputs=options.get("store") or store_for(outputs, keep, findings.seen), keep=keep)


def _origin(found: Discovered) -> dict[str, Any]:
    """Return the record of what the server said of itself."""
    facts = {"platform": found.signature.platform, "version_when_added": found.signature.version}
    return {key: value for key, value in facts.items() if value}


def _record(findings: RowFindings, options: PackageOptions) -> dict[str, Any]:
    """Return the record of the trial that a package keeps, with a note for a person."""
    record: dict[str, Any] = {"verdict": findings.verdict, "rows_compared": findings.rows}
    if findings.why:
        record["why"] = findings.why
    if note := _note(findings, options.get("independent_rows")):
        record["note"] = note
    return record


def _note(findings: RowFindings, independent: bool | None) -> str:
    if findings.verdict == "dependent":
        if independent:
            return f"requests share runs as you said, although the trial found that {findings.why}"
        return f"rows depend on each other ({findings.why}): each request runs alone; --batch overrides"
    if findings.verdict == "undecided" and independent is None:
        return (
            f"none of the trial's rows run ({findings.why}), so rows are taken for independent; give real ones with "
            "--sample FILE, or use --alone"
        )
    if findings.most_rows:
        return f"batches have at most {findings.most_rows} rows, since the server refused more ({findings.why})"
    return ""
