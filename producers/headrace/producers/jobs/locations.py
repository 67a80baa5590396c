"""Inputs and outputs as the ledger names them: whole URIs and absolute paths, never credentials."""

from __future__ import annotations

import os
import re
from collections.abc import Sequence
from pathlib import Path, PurePosixPath
from typing import Final
from urllib.parse import urlsplit

from headrace.contracts.errors import InvalidRequest
from headrace.contracts.jobs import SQL, STORE

_SCHEME: Final = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*://")
#: In the query of a URI that is signed, and so opens what it names to everybody: S3, Google, Azure, plain tokens.
_SIGNED: Final = re.compile(r"(^|&)([\w-]*signature|sig|[\w-]*token)=", re.IGNORECASE)
_GLOB: Final = re.compile(r"[*?\[]")

#: What a file's name may end with that says nothing about its content.
_ENDINGS: Final = re.compile(
    r"(\.(parquet|pq|csv|tsv|jsonl|ndjson|json|arrow|feather|ipc|npy|npz|gz|zst|zstd|bz2|txt))+\Z", re.IGNORECASE
)
_UNSAFE: Final = re.compile(r"[^\w.-]+")


def canonical_input(text: str, folder: Path) -> str:
    """Return an input as the ledger names it: a URI, an absolute path or `sql:QUERY`.

    text: a path, relative to `folder`, a URI, a query, or `@FILE` with a query in it. Raises InvalidRequest.
    """
    if text == "-":
        raise InvalidRequest("standard input can't be scored in bulk: workers read the input themselves; name a file")
    if not text.strip():
        raise InvalidRequest("an input is empty; name a file, a folder, a glob or a URI")
    if text.startswith("@"):
        return SQL + _query_of(folder / Path(text[1:]).expanduser())
    if text.startswith(SQL):
        return SQL + _query(text.removeprefix(SQL), text)
    return _location(text, folder)


def canonical_output(text: str, folder: Path) -> str:
    """Return an output as the ledger names it: a URI, an absolute path or `STORE`. Raises InvalidRequest."""
    if text == STORE:
        return STORE
    if not text.strip() or text == "-":
        raise InvalidRequest("the output must be a folder, a URI of one, or `store`")
    if _GLOB.search(text) and not _SCHEME.match(text):
        raise InvalidRequest(f"the output {text!r} has *, ? or [ in its name; name one folder")
    return _location(text, folder)


def default_output(inputs: Sequence[str], model: str, folder: Path) -> str:
    """Return the folder for the output of a job that names none: the first input's name and the model's, in `folder`.

    inputs: as `canonical_input` returns them.
    """
    return str(folder / f"{_stem(inputs[0])}-{model}.scores")


def check_apart(inputs: Sequence[str], output: str) -> None:
    """Refuse an output folder that is, or lies in, a folder of the input: a later run would read it. Raises."""
    for each in inputs:
        base = each if not _GLOB.search(each) else _GLOB.split(each)[0].rpartition("/")[0]
        if each.startswith(SQL) or not base:
            continue
        if output == base or output.startswith(base.rstrip("/") + "/"):
            raise InvalidRequest(
                f"the output {output} lies in the input {each}, and would be read as input; choose another --output"
            )


def _query_of(path: Path) -> str:
    try:
        text = path.read_text("utf-8")
    except OSError as exc:
        raise InvalidRequest(f"the query file {path} can't be read: {exc.strerror}") from None
    except UnicodeDecodeError as exc:
        raise InvalidRequest(f"the query file {path} is not UTF-8 text: {exc.reason}") from None
    return _query(text, str(path))


def _query(text: str, source: str) -> str:
    query = text.strip().rstrip(";").strip()
    if not query:
        raise InvalidRequest(f"there is no query in {source!r}; write sql:SELECT …")
    return query


def _location(text: str, folder: Path) -> str:
    if text.lower().startswith("file://"):
        text = text[len("file://") :]
        if not text.startswith("/"):
            raise InvalidRequest("a file:// URI needs an absolute path: file:///folder/file")
    elif _SCHEME.match(text):
        return _uri(text)
    # Not resolve(): it would follow links, which may lead elsewhere on the workers' machines.
    return os.path.normpath(folder.absolute() / Path(text).expanduser())


def _uri(text: str) -> str:
    try:
        parts = urlsplit(text)
    except ValueError as exc:
        raise InvalidRequest(f"the URI is malformed: {exc}") from None
    if parts.scheme.startswith("postgres"):
        raise InvalidRequest("a query on the store's database is written sql:SELECT …; export other databases first")
    named = parts.password is not None or (parts.scheme in {"s3", "gs"} and "@" in parts.netloc)
    if named or _SIGNED.search(parts.query):
        raise InvalidRequest(
            f"the URI of {parts.hostname} holds credentials, which no job keeps; set them in the workers' environment"
        )
    return text.rstrip("/") if parts.path.strip("/") else text


def _stem(location: str) -> str:
    if location.startswith(SQL):
        return "query"
    parts = [part for part in PurePosixPath(_SCHEME.sub("/", location)).parts if part != "/"]
    plain = [part for part in parts if not _GLOB.search(part)]
    name = _ENDINGS.sub("", plain[-1]) if plain else ""
    return _UNSAFE.sub("-", name).strip("-.") or "input"
