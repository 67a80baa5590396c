"""Canonical locations: absolute local paths, and URIs of everything else."""

from __future__ import annotations

import os
import re
from typing import Final
from urllib.parse import parse_qsl, unquote, urlsplit

import msgspec

from headrace.bulk.storage.base import BadLocation
from headrace.contracts.errors import quoted

#: Other names of the same storage, as Hadoop, gcsfs and adlfs write them.
_ALIASES: Final = {"s3a": "s3", "s3n": "s3", "gcs": "gs", "azure": "az", "adl": "az", "wasb": "az"}

#: What counts as a scheme; shorter ones are drive letters.
_SCHEME: Final = re.compile(r"^([A-Za-z][A-Za-z0-9+.-]+)://")

#: Parameters of signed URLs, of AWS, Google and Azure.
_SECRETS: Final = re.compile(r"(?i)sig$|signature|token|credential|password|secret|key$")

#: Schemes of the web, where `?` begins a query.
_WEB: Final = ("http", "https")

#: Hosts of Azure's storage, which `https:` may name.
AZURE_HOSTS: Final = (".blob.core.windows.net", ".dfs.core.windows.net")


#: Comes after each name.
BEHIND: Final = "\U0010ffff"


class Location(msgspec.Struct, frozen=True):
    """The parts of a canonical location. scheme: "" is a local path. host: bucket, container or server."""

    scheme: str
    host: str
    path: str

    @property
    def is_local(self) -> bool:
        """Whether this is a path of the local file system."""
        return not self.scheme


def canonical(uri: str, cwd: str = "/") -> str:
    """Return the absolute local path, or the URI without what makes no difference.

    Spaces and letters of any script are kept; local `..` and `.` are resolved by their text, links are not. Raises
    BadLocation, which repeats no password.
    """
    if "\0" in uri or not uri.strip():
        raise BadLocation("a location is empty or has a zero byte; give a path or a URI")
    match = _SCHEME.match(uri)
    if match is None:
        return _local(uri if uri.startswith("/") else f"{cwd}/{uri}")
    scheme = match[1].lower()
    scheme = _ALIASES.get(scheme, scheme)
    rest = uri[match.end() :]
    host, _, path = rest.partition("/")
    _refuse_secrets(scheme, host, path)
    if scheme == "file":
        if host not in ("", "localhost"):
            raise BadLocation(f"{quoted(uri)} is on another host; file URIs are written file:///PATH")
        return _local("/" + unquote(path))
    if not host:
        raise BadLocation(f"{quoted(uri)} names no bucket or host; write {scheme}://NAME/PATH")
    if scheme in _WEB:
        # Servers and their clients resolve these, escaped ones too, which would lead out of a root.
        if any(unquote(part) in (".", "..") for part in re.split(r"[/\\?#]", path)):
            raise BadLocation(f"{quoted(uri)} has `.` or `..` in its path; write the address without them")
        return f"{scheme}://{host.lower()}/{path}"
    return f"{scheme}://{host}/{_key(uri, path)}".rstrip("/")


def split(uri: str) -> Location:
    """Return the parts of a canonical location."""
    match = _SCHEME.match(uri)
    if match is None:
        return Location("", "", uri)
    host, _, path = uri[match.end() :].partition("/")
    return Location(match[1], host, path)


def join(folder: str, name: str) -> str:
    """Return the location of a name below a folder."""
    return f"{folder.rstrip('/')}/{name}"


def relative(folder: str, uri: str) -> str:
    """Return where a cursor lies among the names below a folder: relative to it, or before or behind all of them."""
    base = join(folder, "")
    if uri.startswith(base):
        return uri.removeprefix(base)
    return "" if uri < base else BEHIND


def _local(path: str) -> str:
    found = os.path.normpath(path)
    # POSIX leaves what two leading slashes mean open, and normpath keeps them.
    found = "/" + found.lstrip("/") if found.startswith("//") else found
    try:
        found.encode()
    except UnicodeEncodeError:
        raise BadLocation(f"the name {quoted(found)} isn't UTF-8; rename the file") from None
    return found


def _key(uri: str, path: str) -> str:
    key = path.strip("/")
    parts = key.split("/")
    if key and any(part in ("", ".", "..") for part in parts):
        raise BadLocation(f"{quoted(uri)} has an empty part, `.` or `..`; object stores know no such folders")
    return key


def _refuse_secrets(scheme: str, host: str, path: str) -> None:
    """Raise for a password or a signature in a URI: the ledger, messages and logs hold URIs."""
    user, at, server = host.rpartition("@")
    if at and (":" in user or scheme not in ("abfs", "abfss", "wasbs", "sftp", "ssh", "hdfs", "smb")):
        raise BadLocation(
            f"a {scheme}:// location on {quoted(server)} has a user or password in it; give credentials to the workers "
            "in their environment instead, and take them out of the location"
        )
    query = urlsplit(f"x://{host}/{path}").query
    names = (name for name, _ in parse_qsl(query, keep_blank_values=True) if "/" not in name)
    if "=" in query and any(_SECRETS.search(name) for name in names):
        raise BadLocation(
            f"a {scheme}:// location on {quoted(host)} has a signature or token in it; give credentials to the workers "
            "in their environment instead, and take them out of the location"
        )
