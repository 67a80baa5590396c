"""Makes model packages: of a file, a model on servers, or another package by a recipe; puts them in place, whole."""

from __future__ import annotations

import os
import secrets
import shutil
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final, Unpack

import msgspec

from headrace.contracts import ModelDirectory, ModelPackage, PackageError, UnknownModel, read_package
from headrace.contracts.package.manifest import check_name, sha256_of, write_manifest
from headrace.contracts.package.server import Server
from headrace.lifecycle.packages.adding import PackageOptions, describe, notes_of

__all__ = [
    "PackageOptions",
    "add_model",
    "add_remote_model",
    "derive_package",
    "notes_of",
    "promote",
    "remove_model",
]

MODEL_FILE: Final = "model.onnx"

#: Packages in the making, or on their way out, lie under a name that no model can have.
_PARTIAL: Final = ".partial-"


def add_model(file: Path, models: ModelDirectory, **options: Unpack[PackageOptions]) -> ModelPackage:
    """Make a package of a model file and put it into the model directory, whole or not at all.

    The signature is read from the file and completed by a trial, which proves that rows may share a run; where they
    may not, each request runs alone, and `notes_of` says why. Never replaces a version that is there.
    Raises PackageError naming what is wrong with the file and how to mend it.
    """
    with _partial_folder(models.root) as folder:
        draft = describe(file, folder, **options)
        return _place(draft, models, options.get("version"))


def add_remote_model(
    server: Server, models: ModelDirectory, runtime: str = "", **options: Unpack[PackageOptions]
) -> ModelPackage:
    """Make a package of a model on model servers and put it into the model directory, whole or not at all.

    Every endpoint is asked for the model's tensors; a few small batches show whether rows may share a run. runtime:
    "tfserving", "oip", or "" to find out. Raises PackageError naming what is wrong and how to mend it.
    """
    # Needs the libraries of gRPC and HTTP.
    from headrace.lifecycle.packages.servers.packaging import describe_remote

    with _partial_folder(models.root) as folder:
        draft = describe_remote(folder, server, runtime, **options)
        return _place(draft, models, options.get("version"))


def derive_package(
    source: ModelPackage, folder: Path, files: Sequence[Path], *, runtime: str, step: Mapping[str, Any]
) -> ModelPackage:
    """Make a package of what a step of a recipe produced from `source`.

    folder: of the new package. files: in it, the model file first, then what it needs beside it.
    runtime: that runs it. step: what was done, for the record; it follows the steps of the source.
    The signature, labels and advice are those of the source: a step may change neither. What the source's runs were
    measured to take is not its product's.
    """
    model_file, *others = files
    record = {key: value for key, value in source.manifest.provenance.items() if key not in {"profile", "steps"}}
    # What the original says of itself, such as its accuracy, isn't true of what is made of it.
    record = record if "original" in record else {"original": record}
    kept = [source.manifest.tokenizer.file] if source.manifest.tokenizer else []
    for name in kept:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(source.folder / name, folder / name)
    manifest = msgspec.structs.replace(
        source.manifest,
        runtime=runtime,
        file=str(model_file.relative_to(folder)),
        sha256=sha256_of(model_file),
        files={name: sha256_of(folder / name) for name in [*(str(each.relative_to(folder)) for each in others), *kept]},
        batching=source.manifest.batching.unmeasured(),
        provenance={**record, "steps": [*source.manifest.provenance.get("steps", []), dict(step)]},
    )
    write_manifest(folder, manifest)
    return read_package(folder)


def promote(
    package: ModelPackage, models: ModelDirectory, *, version: str | None = None, provenance: Mapping[str, Any] = {}
) -> ModelPackage:
    """Copy a package into a model directory as a new version of its model, whole or not at all.

    version: the next whole number if None. provenance: joins that of the package.
    Raises PackageError when the version is taken.
    """
    package.verify()
    with _partial_folder(models.root) as folder:
        for name in package.manifest.checksums:
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(package.folder / name, folder / name)
        record = {**package.manifest.provenance, **provenance}
        write_manifest(folder, msgspec.structs.replace(package.manifest, provenance=record))
        return _place(read_package(folder), models, version)


def remove_model(models: ModelDirectory, name: str, version: str) -> None:
    """Remove one version. Workers that have it loaded keep it. Raises UnknownModel when it isn't there."""
    known = models.versions(name)
    if not known:
        raise UnknownModel(f"there is no model {name!r} in {models.root}")
    if version not in known:
        raise UnknownModel(f"model {name!r} has no version {version!r} in {models.root}; it has: {', '.join(known)}")
    folder = models.root / name / version
    # Out of sight first: nobody may read half a package.
    gone = models.root / f"{_PARTIAL}{secrets.token_hex(8)}"
    folder.rename(gone)
    shutil.rmtree(gone)
    if not any(folder.parent.iterdir()):
        folder.parent.rmdir()


def _place(draft: ModelPackage, models: ModelDirectory, version: str | None) -> ModelPackage:
    """Move a package that lies on the model directory's file system to its place in it."""
    name = draft.name
    while True:
        chosen = check_name("model version", version or _next_version(models, name))
        write_manifest(draft.folder, msgspec.structs.replace(draft.manifest, version=chosen))
        read_package(draft.folder)
        if _put_in_place(draft.folder, models.root / name / chosen):
            return models.get(name, chosen)
        # An automatic number was taken by somebody else between our look and the rename: there is a next one.
        if version:
            raise PackageError(
                f"model {name!r} has a version {version!r} already, and versions never change; leave --version out "
                f"for the next one, or remove it with `headrace models rm {name} {version}`"
            )


def _next_version(models: ModelDirectory, name: str) -> str:
    return str(1 + max((int(version) for version in models.versions(name) if version.isdecimal()), default=0))


@contextmanager
def _partial_folder(root: Path) -> Iterator[Path]:
    """Make a folder on the file system of the model directory, to be renamed from; what is left of it goes."""
    folder = root / f"{_PARTIAL}{secrets.token_hex(8)}"
    try:
        folder.mkdir(parents=True)
        yield folder
    except OSError as exc:
        raise PackageError(f"{exc.filename or root} can't be written: {exc.strerror}") from exc
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _put_in_place(folder: Path, target: Path) -> bool:
    """Rename a complete package to its place; false when that place is taken."""
    target.parent.mkdir(exist_ok=True)
    for path in folder.rglob("*"):
        if path.is_file():
            with path.open("rb") as file:
                os.fsync(file.fileno())
    try:
        folder.rename(target)
    except OSError:
        if target.exists():
            return False
        raise
    return True
