"""Model packages: a folder `models/NAME/VERSION/` with a `model.toml`, and the model file or model server it names."""

from __future__ import annotations

import hashlib
import math
import re
import tomllib
from pathlib import Path
from typing import Any, Final, Literal

import msgspec
import tomli_w
from numpy.typing import NDArray

from headrace.contracts.errors import PackageError, SignatureMismatch, UnknownModel, quoted
from headrace.contracts.package.server import Server
from headrace.contracts.package.signature import Signature, TensorSpec
from headrace.contracts.package.text_recipe import Tokenizer
from headrace.contracts.tensors.codec import as_array

MANIFEST: Final = "model.toml"

#: Asks for the newest version; no package may have it as its version.
LATEST: Final = "latest"

#: Names become queue names, folder names and SQL values; this keeps them safe in all three.
_NAME: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,99}")

#: Read files for their checksum in pieces of this size (1 MiB): large models never sit in memory twice.
_CHUNK_BYTES: Final = 1 << 20


#: tomllib takes minutes for a dotted key (a.b.c…) of ten thousand parts; a line of text may have some hundred dots.
_MAX_KEY_PARTS: Final = 1000
_KEY_ENDS: Final = re.compile(r"[\n=,{\[]")


class BatchingAdvice(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Advice on how a worker should batch this model.

    max_rows: most rows in one batch. max_wait_ms: longest time a request may wait for others when a wait pays.
    row_sizes: if given, batches are padded up to one of these row counts (for engines with fixed shapes).
    independent_rows: whether a row's outputs are the same in any company; if not, each request runs alone and whole.
    seconds_fixed, seconds_per_row: a measured cost model to start from; 0 means learn it.
    threads: those the figures were measured with; 0 is unknown. measured_on: where, as `processor.place_of` names it.
    """

    max_rows: int = 64
    max_wait_ms: float = 2.0
    row_sizes: tuple[int, ...] = ()
    independent_rows: bool = True
    seconds_fixed: float = 0.0
    seconds_per_row: float = 0.0
    threads: int = 0
    measured_on: str = ""

    def __post_init__(self) -> None:
        """Refuse impossible sizes."""
        times = (self.max_wait_ms, self.seconds_fixed, self.seconds_per_row)
        if self.max_rows < 1 or not all(0 <= time < math.inf for time in times):
            raise PackageError("[batching] needs max_rows of at least 1 and times of at least 0")
        if self.threads < 0:
            raise PackageError("[batching] threads must be a whole number of at least 1, or 0 when it is unknown")
        if list(self.row_sizes) != sorted(set(self.row_sizes)) or any(size < 1 for size in self.row_sizes):
            raise PackageError("[batching] row_sizes must be rising whole numbers of at least 1")
        if self.row_sizes and self.row_sizes[-1] < self.max_rows:
            raise PackageError("[batching] the largest of row_sizes must be at least max_rows")
        if self.row_sizes and not self.independent_rows:
            raise PackageError(
                "[batching] row_sizes pad with copies of rows, which changes the answers of a model without "
                "independent_rows; make its inputs per_request with their whole shape instead"
            )

    def unmeasured(self) -> BatchingAdvice:
        """Return the advice without measured figures, for a model derived from the one they were measured on."""
        return msgspec.structs.replace(self, seconds_fixed=0.0, seconds_per_row=0.0, threads=0, measured_on="")


class StoreAdvice(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Which outputs are kept, and how.

    outputs: "json" (readable in SQL) or "binary" (exact bytes, for large tensors). keep: the outputs that are stored
    and returned; all of them if empty. The others are not computed where the runtime can leave them out.
    """

    outputs: Literal["json", "binary"] = "json"
    keep: tuple[str, ...] = ()


class Constant(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """An input of the model file that the package sets, so that no request holds it.

    value: a number, a string, a truth value or nested lists of them, of the whole tensor.
    """

    name: str
    datatype: str
    value: Any

    def __post_init__(self) -> None:
        """Refuse a value that is none of its datatype."""
        try:
            self.array()
        except SignatureMismatch as exc:
            raise PackageError(f"[[constants]] {exc.message}") from None

    def array(self) -> NDArray[Any]:
        """Return the value as the model takes it."""
        return as_array(self.value, self.datatype, self.name)


class Manifest(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The content of `model.toml`.

    file: path of the model file, relative to the package's folder. sha256: its checksum, in hex. Both are absent where
    there is a server, which has the model then.
    files: other files that the model file needs, such as weights: path → checksum.
    constants: inputs of the model file that the package sets. labels: class names in the order of the output's last
    dimension. tokenizer: how bulk jobs make inputs of text. provenance: how the model came to be.
    """

    name: str
    version: str
    runtime: str
    file: str = ""
    sha256: str = ""
    inputs: tuple[TensorSpec, ...]
    outputs: tuple[TensorSpec, ...]
    constants: tuple[Constant, ...] = ()
    files: dict[str, str] = {}
    server: Server | msgspec.UnsetType = msgspec.UNSET
    labels: tuple[str, ...] = ()
    tokenizer: Tokenizer | msgspec.UnsetType = msgspec.UNSET
    batching: BatchingAdvice = BatchingAdvice()
    store: StoreAdvice = StoreAdvice()
    provenance: dict[str, Any] = {}

    def __post_init__(self) -> None:
        """Refuse a model that is nowhere, or in two places."""
        if not self.server and not (self.file and self.sha256):
            raise PackageError("it needs file and sha256, or a [server] that has the model")
        if self.server and (self.file or self.sha256):
            raise PackageError("it has a model file and a [server]; leave file and sha256 out, or the server")
        if self.server and self.server.allow_new_signature and (self.constants or self.batching.row_sizes):
            raise PackageError(
                "[server] allow_new_signature can't be with constants or row_sizes, which may not fit then"
            )

    @property
    def checksums(self) -> dict[str, str]:
        """The checksum of each file: the model file, if there is one, and what lies beside it."""
        return {self.file: self.sha256, **self.files} if self.file else self.files

    @property
    def signature(self) -> Signature:
        """The inputs of a request and the outputs of its result."""
        keep = self.store.keep
        outputs = tuple(spec for spec in self.outputs if spec.name in keep) if keep else self.outputs
        return Signature(inputs=self.inputs, outputs=outputs)

    @property
    def checksum(self) -> str:
        """SHA-256, in hex, of all that decides about outputs: files, tensors, constants, labels, the server's model.

        The same model file with another decoding of its inputs has another one; measurements, advice on batching and
        the addresses of servers change nothing.
        """
        plain = msgspec.structs.replace(
            self, batching=BatchingAdvice(), store=StoreAdvice(keep=self.store.keep), provenance={}
        )
        decides: object = plain
        if self.server:
            decides = {**msgspec.to_builtins(plain), "server": self.server.identity}
        return hashlib.sha256(msgspec.json.encode(decides, order="deterministic")).hexdigest()

    @property
    def was_tried(self) -> bool:
        """Whether a trial is recorded, of this file or of the one it was made of."""
        original = self.provenance.get("original")
        return "trial" in self.provenance or (isinstance(original, dict) and "trial" in original)

    def with_signature(self, signature: Signature) -> Manifest:
        """Return the same with other tensors, which a server's model was found to have."""
        return msgspec.structs.replace(self, inputs=signature.inputs, outputs=signature.outputs)

    @property
    def file_signature(self) -> Signature:
        """The inputs and outputs of the model file: those of `signature`, and the constants."""
        fixed = tuple(
            # A spec has no sizes of 0, which are those of an input that never holds a value.
            TensorSpec(
                name=each.name, datatype=each.datatype, shape=tuple(n or -1 for n in array.shape), per_request=True
            )
            for each in self.constants
            for array in [each.array()]
        )
        return Signature(inputs=(*self.inputs, *fixed), outputs=self.signature.outputs)


class ModelPackage(msgspec.Struct, frozen=True, kw_only=True):
    """A package on disk whose manifest was read and whose paths were checked."""

    folder: Path
    manifest: Manifest

    @property
    def name(self) -> str:
        """The model's name."""
        return self.manifest.name

    @property
    def version(self) -> str:
        """The package's version."""
        return self.manifest.version

    @property
    def file(self) -> Path:
        """The model file; the folder itself where a server has the model."""
        return self.folder / self.manifest.file

    @property
    def size_bytes(self) -> int:
        """Bytes of the model file and of what lies beside it."""
        return sum((self.folder / name).stat().st_size for name in self.manifest.checksums)

    def verify(self) -> None:
        """Compare the package's files with their checksums. Raises PackageError."""
        for name, sha256 in self.manifest.checksums.items():
            found = sha256_of(self.folder / name)
            if found != sha256.lower():
                raise PackageError(
                    f"{self.folder / name} does not match its checksum: model.toml says {sha256[:12]}…, the file has "
                    f"{found[:12]}…; it was changed or damaged: add it again with `headrace models add`"
                )


def sha256_of(path: Path) -> str:
    """Return the SHA-256 of a file in hex. Raises PackageError when it can't be read."""
    digest = hashlib.sha256()
    try:
        with path.open("rb") as file:
            while chunk := file.read(_CHUNK_BYTES):
                digest.update(chunk)
    except OSError as exc:
        raise PackageError(f"model file {path} can't be read: {exc.strerror}") from exc
    return digest.hexdigest()


def check_name(kind: str, value: str) -> str:
    """Refuse a model name or version that could leave its folder or confuse a queue. Raises PackageError."""
    if not isinstance(value, str) or not _allowed(value):
        raise PackageError(
            f"{kind} {quoted(value)} is not allowed; use letters, digits, '_', '-' and single dots, "
            "at most 100 characters"
        )
    return value


def _allowed(name: str) -> bool:
    return _NAME.fullmatch(name) is not None and ".." not in name


def read_package(folder: Path) -> ModelPackage:
    """Read one package; the checksum is left to `ModelPackage.verify`, which reads the whole file.

    Raises PackageError when the manifest is missing or wrong, or points outside its folder.
    """
    path = folder / MANIFEST
    try:
        manifest = msgspec.convert(_parse(path), Manifest)
    except OSError as exc:
        raise PackageError(f"{path} can't be read: {exc.strerror}; make a package with `headrace models add`") from exc
    except (msgspec.ValidationError, PackageError) as exc:
        raise PackageError(f"{path} is wrong: {exc}") from exc
    check_name("model name", manifest.name)
    check_name("model version", manifest.version)
    if manifest.version == LATEST:
        raise PackageError(f"{path} has the version {LATEST!r}, which asks for the newest; name it otherwise")
    _check_tensors(path, manifest)
    _check_tokenizer(path, manifest)
    for file in manifest.checksums:
        _check_file(path, folder, file)
    return ModelPackage(folder=folder, manifest=manifest)


def write_manifest(folder: Path, manifest: Manifest) -> None:
    """Write `model.toml` into a package's folder, whole or not at all: a worker may be reading the old one."""
    partial = folder / f".{MANIFEST}"
    partial.write_text(tomli_w.dumps(manifest_fields(manifest)), "utf-8")
    partial.replace(folder / MANIFEST)


def manifest_fields(manifest: Manifest) -> dict[str, Any]:
    """Return the content of `model.toml` as plain values, without those for which TOML has no word."""
    fields: dict[str, Any] = _without_none(msgspec.to_builtins(manifest))
    if not manifest.file:
        del fields["file"], fields["sha256"]
    return fields


def _without_none(value: Any) -> Any:
    """Drop the None values of a record, which TOML can't express."""
    if isinstance(value, dict):
        return {key: _without_none(item) for key, item in value.items() if item is not None}
    if isinstance(value, list | tuple):
        return [_without_none(item) for item in value if item is not None]
    return value


def _parse(path: Path) -> dict[str, Any]:
    try:
        text = path.read_text("utf-8")
        if any(piece.count(".") > _MAX_KEY_PARTS for piece in _KEY_ENDS.split(text)):
            raise PackageError(f"a key has more than {_MAX_KEY_PARTS} parts")
        return tomllib.loads(text)
    # tomllib also raises plain ValueErrors, for dates that don't exist and numbers of thousands of digits.
    except (ValueError, RecursionError) as exc:
        raise PackageError(f"not TOML: {exc}") from exc


def _check_file(path: Path, folder: Path, file: str) -> None:
    try:
        root = folder.resolve()
        inside = (root / file).resolve().is_relative_to(root) and not Path(file).is_absolute()
    # NUL is a ValueError, a circle of symbolic links an OSError or, before Python 3.13, a RuntimeError.
    except (ValueError, OSError, RuntimeError) as exc:
        raise PackageError(f"{path} names the file {quoted(file)}, which can't be one: {exc}") from exc
    if not inside:
        raise PackageError(f"{path} names the file {quoted(file)}, which is outside the package's folder")


def _check_tensors(path: Path, manifest: Manifest) -> None:
    unknown = set(manifest.store.keep) - {spec.name for spec in manifest.outputs}
    if unknown:
        raise PackageError(f"{path} keeps {', '.join(map(quoted, sorted(unknown)))}, which are no outputs of the model")
    inputs = [spec.name for spec in manifest.inputs] + [constant.name for constant in manifest.constants]
    for kind, names in (("inputs", inputs), ("outputs", [spec.name for spec in manifest.outputs])):
        if not names:
            raise PackageError(f"{path} lists no {kind}")
        if len(set(names)) != len(names):
            raise PackageError(f"{path} lists the same name twice among its {kind}")
    if any(spec.decode for spec in manifest.outputs):
        raise PackageError(f"{path} has a decode among its outputs; only inputs are made of images")


def _check_tokenizer(path: Path, manifest: Manifest) -> None:
    tokenizer = manifest.tokenizer
    if tokenizer is msgspec.UNSET:
        return
    try:
        tokenizer.check(manifest.inputs)
    except PackageError as exc:
        raise PackageError(f"{path} is wrong: {exc.message}") from None
    if tokenizer.file not in manifest.files:
        raise PackageError(
            f"{path}: [tokenizer] has the file {quoted(tokenizer.file)}, whose checksum is missing from [files]"
        )


def version_key(version: str) -> tuple[tuple[int, int, str], ...]:
    """Order versions as people do: numbers by value, so that 10 comes after 9; "2.1" after "2"."""
    parts = re.findall(r"[0-9]+|[^0-9]+", version)
    return tuple((1, int(part), "") if part[0] in "0123456789" else (0, 0, part) for part in parts)


def _versions_in(folder: Path) -> list[str]:
    return [path.parent.name for path in folder.glob(f"*/{MANIFEST}") if _allowed(path.parent.name)]


class ModelDirectory:
    """A folder of packages, `ROOT/NAME/VERSION/model.toml`.

    Folders whose names no model can have, such as `.partial`, are passed over.
    """

    def __init__(self, root: Path) -> None:
        """root: need not exist; a directory that does not exist holds no model."""
        self.root = root

    def names(self) -> list[str]:
        """List the models, in alphabetical order."""
        if not self.root.is_dir():
            return []
        return sorted(path.name for path in self.root.iterdir() if _allowed(path.name) and _versions_in(path))

    def versions(self, name: str) -> list[str]:
        """List the versions of a model, oldest first; empty when there is no such model."""
        check_name("model name", name)
        # The version itself decides between "1" and "01".
        return sorted(_versions_in(self.root / name), key=lambda version: (version_key(version), version))

    def get(self, name: str, version: str = "") -> ModelPackage:
        """Read one package; version "" or "latest" means the newest.

        Raises UnknownModel when it isn't there, PackageError when it is wrong.
        """
        versions = self.versions(name) if isinstance(name, str) and _allowed(name) else []
        if not versions:
            known = ", ".join(self.names()) or "none"
            raise UnknownModel(f"there is no model {quoted(name)} in {self.root}; it holds: {known}")
        chosen = versions[-1] if version in {"", LATEST} else version
        if chosen not in versions:
            raise UnknownModel(f"model {name!r} has no version {quoted(version)}; it has: {', '.join(versions)}")
        package = read_package(self.root / name / chosen)
        if (package.name, package.version) != (name, chosen):
            raise PackageError(
                f"{package.folder / MANIFEST} says {package.name} {package.version}, but lies in {name}/{chosen}"
            )
        return package
