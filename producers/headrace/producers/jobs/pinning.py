"""The version of a model that a job is pinned to: what workers serve, else the model directory."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Sequence
from typing import NamedTuple

from headrace.contracts.errors import PackageError, SignatureMismatch, UnknownModel
from headrace.contracts.jobs import ScoreSpec
from headrace.contracts.package.manifest import LATEST, ModelDirectory, ModelPackage, check_name, version_key
from headrace.contracts.package.signature import Signature
from headrace.queueing.consumer.serving import Served


class Pin(NamedTuple):
    """A version of a model and its package. checksum: `Manifest.checksum`."""

    version: str
    checksum: str
    signature: Signature


def pin(served: Sequence[Served], directory: ModelDirectory, model: str, version: str = "") -> Pin:
    """Return what a new job is pinned to.

    served: what workers announce. version: asked for; "" or "latest" for the newest that workers serve, and where none
    serves the model, the newest in the directory. Raises UnknownModel, PackageError.
    """
    check_model(model)
    wanted = "" if version == LATEST else version
    matching = [each for each in served if wanted in {"", each.version}]
    if matching:
        newest = max(matching, key=lambda each: (version_key(each.version), each.version))
        checksum = newest.checksum or _checksum_on_disk(directory, model, newest.version)
        if not checksum:
            raise PackageError(f"the workers of model {model!r} don't announce which package they serve; upgrade them")
        return Pin(newest.version, checksum, newest.signature)
    try:
        package = directory.get(model, wanted)
    except (UnknownModel, OSError) as exc:
        raise _unknown(served, directory, model, wanted) from exc
    return _pin_of(package)


def check_model(model: str) -> None:
    """Refuse a name that no model can have. Raises UnknownModel."""
    try:
        check_name("model name", model)
    except PackageError as exc:
        raise UnknownModel(exc.message) from None


def check_mapping(spec: ScoreSpec, signature: Signature) -> None:
    """Refuse a mapping to inputs that the model doesn't have. Raises SignatureMismatch naming the close match."""
    known = [each.name for each in signature.inputs]
    for column, name in spec.mapping.items():
        if name not in known:
            raise SignatureMismatch(
                f"column {column!r} is mapped to {name!r}, which is no input of {spec.model}{_close(name, known)}; "
                f"its inputs are {', '.join(known)}"
            )


def _close(name: str, known: Iterable[str]) -> str:
    found = difflib.get_close_matches(name, list(known), n=1)
    return f" (did you mean {found[0]!r}?)" if found else ""


def _pin_of(package: ModelPackage) -> Pin:
    return Pin(package.version, package.manifest.checksum, package.manifest.signature)


def _checksum_on_disk(directory: ModelDirectory, model: str, version: str) -> str:
    try:
        return directory.get(model, version).manifest.checksum
    except (UnknownModel, PackageError, OSError):
        return ""


def _unknown(served: Sequence[Served], directory: ModelDirectory, model: str, version: str) -> UnknownModel:
    if served:
        there = ", ".join(sorted({each.version for each in served}, key=version_key))
        return UnknownModel(f"no worker serves version {version!r} of model {model!r}; they serve: {there}")
    known = directory.names()
    held = f"which holds {', '.join(known)}{_close(model, known)}" if known else "which holds no model"
    what = f"version {version!r} of model {model!r}" if version else f"model {model!r}"
    return UnknownModel(
        f"no worker serves {what}, nor is it in {directory.root}, {held}; start a worker that serves it, "
        "or add it with `headrace models add FILE`"
    )
