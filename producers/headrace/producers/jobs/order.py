"""The order of a caller: what is to be scored, checked and in canonical form."""

from __future__ import annotations

import math
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Final, Literal, TypeAlias, TypedDict, get_args

import msgspec

from headrace.contracts.errors import InvalidRequest
from headrace.contracts.ids import is_storable
from headrace.contracts.jobs import STORE, JobOptions, OutputFormat, ScoreSpec, parse_max_errors
from headrace.contracts.message import MAX_PRIORITY
from headrace.producers.jobs.locations import canonical_input, canonical_output, check_apart, default_output

Location: TypeAlias = str | os.PathLike[str]

_MAX_NAME: Final = 100
_ON_NULL: Final = "on_null must be error, skip or fill=VALUE"


class ScoreOptions(TypedDict, total=False):
    """Options of `Client.score`.

    What is computed: mapping: column → input of the model, where names differ. keep: columns of the input that go into
    the output. prefix: of the names of outputs. format: of the output: parquet, csv, jsonl. input_format: where names
    don't tell it. limit: rows to score, from the first; 0 is all. on_null: "error", "skip" or "fill=VALUE". truncate:
    "error" or "cut", for text longer than the model takes. version: of the model; "" is the one that workers serve.

    How it is run: priority: 0 to 9; a job of a higher one goes first. weight: share of the workers among jobs of one
    priority. max_errors: bad rows after which the job fails: 100, "100" or "1%". workers: most shards at a time.
    max_rows_per_s: of all workers together. name: to find the job by.

    When the job is there already: restart: begin anew. add_new: score files that are new in the inputs. keep_version:
    go on with the version and package that it was begun with. dry_run: score a sample only and report.
    """

    mapping: Mapping[str, str]
    keep: Sequence[str]
    prefix: str
    format: OutputFormat
    input_format: str
    limit: int
    on_null: str
    truncate: Literal["error", "cut"]
    version: str
    priority: int
    weight: float
    max_errors: int | str
    workers: int
    max_rows_per_s: float
    name: str
    dry_run: bool
    restart: bool
    add_new: bool
    keep_version: bool


class Wishes(msgspec.Struct, frozen=True, kw_only=True):
    """The wishes of a caller for a job that is there already. At most one of the first two may be set."""

    restart: bool = False
    add_new: bool = False
    keep_version: bool = False


class Order(msgspec.Struct, frozen=True, kw_only=True):
    """A job to be created, or found again. version: asked for, "" for what workers serve.

    given: names of the fields of `options` that the caller set; the others stay as they are in a job that is there.
    """

    spec: ScoreSpec
    options: JobOptions
    name: str
    version: str
    wishes: Wishes
    given: frozenset[str] = frozenset()


def order_of(
    model: str, inputs: Location | Sequence[Location], output: Location, options: ScoreOptions, folder: Path
) -> Order:
    """Check a call of `Client.score` and put it into canonical form.

    output: "" for a folder in `folder`, named after input and model. folder: that relative paths are relative to.
    Raises InvalidRequest.
    """
    listed = [inputs] if isinstance(inputs, str | os.PathLike) else list(inputs)
    if not listed:
        raise InvalidRequest("there is no input; name files, folders, globs or URIs")
    whole = tuple(dict.fromkeys(canonical_input(os.fspath(each), folder) for each in listed))
    target = os.fspath(output)
    place = canonical_output(target, folder) if target else default_output(whole, model, folder)
    if place != STORE:
        check_apart(whole, place)
    spec = _spec(model, whole, place, options)
    wishes = Wishes(**{name: bool(options.get(name)) for name in Wishes.__struct_fields__})
    if wishes.restart and (wishes.add_new or wishes.keep_version):
        raise InvalidRequest(
            "restart begins anew with the present version; it goes with neither add_new nor keep_version"
        )
    name = options.get("name", "")
    _check_text("name", name)
    if len(name) > _MAX_NAME:
        raise InvalidRequest(f"the name of a job has at most {_MAX_NAME} characters")
    return Order(
        spec=spec,
        options=_run_options(options),
        name=name,
        version=options.get("version", ""),
        wishes=wishes,
        given=frozenset(JobOptions.__struct_fields__) & options.keys(),
    )


def _spec(model: str, inputs: tuple[str, ...], output: str, options: ScoreOptions) -> ScoreSpec:
    spec = ScoreSpec(
        model=model,
        inputs=inputs,
        output=output,
        format=options.get("format", "parquet"),
        mapping=dict(options.get("mapping", {})),
        keep=tuple(options.get("keep", ())),
        prefix=options.get("prefix", ""),
        limit=options.get("limit", 0),
        on_null=options.get("on_null", "error"),
        truncate=options.get("truncate", "error"),
        input_format=options.get("input_format", ""),
    )
    for text in (model, output, spec.prefix, spec.on_null, spec.input_format, *inputs, *spec.keep):
        _check_text("an option", text)
    if spec.format not in get_args(OutputFormat):
        raise InvalidRequest(f"format must be one of {', '.join(get_args(OutputFormat))}, not {spec.format!r}")
    if spec.on_null not in {"error", "skip"} and not spec.on_null.startswith("fill="):
        raise InvalidRequest(f"{_ON_NULL}, not {spec.on_null!r}")
    if spec.truncate not in {"error", "cut"}:
        raise InvalidRequest(f"truncate must be error or cut, not {spec.truncate!r}")
    if spec.limit < 0:
        raise InvalidRequest("limit must be a number of rows, or 0 for all")
    _check_columns(spec)
    return spec


def _check_columns(spec: ScoreSpec) -> None:
    twice = [name for name in set(spec.keep) if spec.keep.count(name) > 1]
    if twice:
        raise InvalidRequest(f"column {twice[0]!r} is kept twice; name it once")
    targets = list(spec.mapping.values())
    twice = [name for name in set(targets) if targets.count(name) > 1]
    if twice:
        raise InvalidRequest(f"two columns are mapped to the input {twice[0]!r}; an input takes one")


def _run_options(options: ScoreOptions) -> JobOptions:
    made = JobOptions(
        priority=options.get("priority", 0),
        weight=options.get("weight", 1.0),
        max_errors=str(options.get("max_errors", "")),
        workers=options.get("workers", 0),
        max_rows_per_s=options.get("max_rows_per_s", 0.0),
        dry_run=options.get("dry_run", False),
    )
    parse_max_errors(made.max_errors)
    if not 0 <= made.priority <= MAX_PRIORITY:
        raise InvalidRequest(f"priority must be 0 to {MAX_PRIORITY}, not {made.priority}")
    if not 0 < made.weight < math.inf:
        raise InvalidRequest(f"weight must be a number above 0, not {made.weight}")
    if made.workers < 0 or not 0 <= made.max_rows_per_s < math.inf:
        raise InvalidRequest("workers and max_rows_per_s must be numbers of at least 0; 0 is no bound")
    return made


def _check_text(what: str, text: str) -> None:
    if not is_storable(text):
        raise InvalidRequest(f"{what} holds characters that can't be stored (NUL, lone surrogates)")
