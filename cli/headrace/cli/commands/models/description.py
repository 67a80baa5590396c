"""A model package as commands describe it: lines for a person, a document for a program."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import msgspec

from headrace.cli.commands.models.calls import show_calls
from headrace.cli.terminal.console import print_fields
from headrace.contracts.formatting import sized
from headrace.contracts.package.manifest import Manifest, ModelPackage
from headrace.contracts.package.signature import TensorSpec
from headrace.contracts.problem import Problem

#: Characters of a constant's value that are shown.
_SHOWN_VALUE: Final = 60


def document_of(package: ModelPackage) -> dict[str, object]:
    """Return a package as a JSON document."""
    from headrace.lifecycle.packages.registry import notes_of

    return {
        **msgspec.to_builtins(package.manifest),
        "folder": str(package.folder),
        "bytes": package.size_bytes,
        "notes": notes_of(package),
    }


#: Note on packages made by hand.
_UNPROVEN: Final = (
    "rows are taken for independent, but no trial is recorded: `headrace models add` makes one, HEADRACE_CHECK_EVERY "
    "watches while they are served"
)


def show_package(package: ModelPackage, problems: Sequence[Problem] = ()) -> None:
    """Print what a package takes and gives, how it is served, and a call. problems: as workers report them."""
    from headrace.lifecycle.packages.registry import notes_of

    manifest = package.manifest
    store = manifest.store
    print_fields(
        [
            ("model", f"{package.name} {package.version}"),
            ("runtime", manifest.runtime),
            *(_input(spec) for spec in manifest.inputs),
            *(("constant", f"{each.name} {each.datatype} = {_value(each.value)}") for each in manifest.constants),
            *((_output(spec, kept=not store.keep or spec.name in store.keep)) for spec in manifest.outputs),
            *((("labels", ", ".join(manifest.labels)),) if manifest.labels else ()),
            *_text(manifest),
            *_served(manifest),
            *(("note", line) for line in notes_of(package)),
            *((("note", _UNPROVEN),) if manifest.batching.independent_rows and not manifest.was_tried else ()),
            ("outputs in rows", store.outputs),
            *_place(package),
            *(("problem", str(problem)) for problem in problems),
            *(("beside it", name) for name in manifest.files),
            *((f"{key}", value) for key, value in manifest.provenance.items() if key not in {"profile", "trial"}),
            *_profiled(manifest.provenance.get("profile")),
        ]
    )
    show_calls(manifest)


def _place(package: ModelPackage) -> list[tuple[str, object]]:
    """Return the lines on where the model is: in a file, or on a server."""
    manifest = package.manifest
    server = manifest.server
    if not server:
        return [("file", f"{package.file} ({sized(package.size_bytes)})"), ("sha256", manifest.sha256)]
    which = f", version {server.version}" if server.version else f", label {server.label}" if server.label else ""
    most = f"at most {server.max_in_flight} batches at a time" if server.max_in_flight else "as many as pay"
    lines: list[tuple[str, object]] = [
        ("server", f"{server.model}{which}, by {manifest.runtime}"),
        *(("endpoint", endpoint) for endpoint in server.endpoints),
        ("in flight", f"{most}, on each endpoint"),
    ]
    if server.credentials:
        lines.append(("credentials", f"HEADRACE_SERVER_CREDENTIALS_{server.credentials}"))
    return lines


def _input(spec: TensorSpec) -> tuple[str, object]:
    notes = "" if spec.allow_nan else ", no NaN"
    notes += "; bulk jobs decode it from images" if spec.decode else ""
    notes += f"; tried with {list(spec.sample_shape)}" if spec.sample_shape else ""
    if spec.per_request:
        return ("parameter", f"{spec.describe()}{notes}, once a request")
    return ("input", f"{spec.describe()}{notes}")


def _text(manifest: Manifest) -> list[tuple[str, object]]:
    """Return the line on how bulk jobs make inputs of text."""
    tokenizer = manifest.tokenizer
    if not tokenizer:
        return []
    limit = tokenizer.limit(manifest.inputs)
    bound = f", at most {limit} tokens" if limit else ""
    return [("text", f"bulk jobs make {', '.join(tokenizer.inputs)} of the column {tokenizer.column!r}{bound}")]


def _output(spec: TensorSpec, *, kept: bool) -> tuple[str, object]:
    return ("output", spec.describe() + ", once a request" * spec.per_request + ("" if kept else ", not kept"))


def _value(value: object) -> str:
    text = msgspec.json.encode(value).decode()
    return text if len(text) <= _SHOWN_VALUE else f"{text[:_SHOWN_VALUE]}…"


def _served(manifest: Manifest) -> list[tuple[str, object]]:
    """Return the lines on how requests are run."""
    batching = manifest.batching
    if not batching.independent_rows:
        return [("served", "one request a run, alone and whole")]
    lines: list[tuple[str, object]] = [
        ("served", f"in batches of at most {batching.max_rows} rows, waiting at most {batching.max_wait_ms:g} ms")
    ]
    if batching.row_sizes:
        sizes = " or ".join(map(str, batching.row_sizes))
        padded = "" if batching.row_sizes == (1,) else " padded or"
        lines.append(("rows of a run", f"{sizes}; batches of other sizes run{padded} in pieces"))
    return lines


def _profiled(record: object) -> list[tuple[str, object]]:
    """Return the line on how a package was profiled; `--json` has the figures."""
    if not isinstance(record, dict):
        return []
    where = f"{record.get('processor', 'unknown')}, {record.get('device', 'unknown')}"
    return [("profiled", f"on {where}, {record.get('measured_at', 'at an unknown time')}")]
