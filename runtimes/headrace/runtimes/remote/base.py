"""The contract of a connection to a model server: one endpoint of one model."""

from __future__ import annotations

import base64
from collections.abc import Sequence
from typing import Final, Protocol, TypeVar
from urllib.parse import urlsplit

import msgspec

from headrace.contracts.errors import HeadraceError, InferenceFailed, PackageError, quoted
from headrace.contracts.package.signature import TensorSpec
from headrace.contracts.tensors.codec import Tensors
from headrace.runtimes.base import Unavailable

#: Schemes of endpoints, and whether they are encrypted.
SCHEMES: Final = {"grpc": False, "grpcs": True, "http": False, "https": True}

#: So much of a server's text goes into an error.
MOST_TEXT: Final = 500

#: So much of it where words on what to do follow, which a report of a problem must not cut off.
MOST_BEFORE_REMEDY: Final = 200

#: Whatever a server asks for, it is asked again after this time. Some ask for years, or for a date that is wrong.
LONGEST_RETRY_AFTER_S: Final = 30.0


class ServerAway(Unavailable):
    """The server can't be reached, is loading the model, or did not answer in time.

    retry_after_s: as it asks for, but at most LONGEST_RETRY_AFTER_S.
    """

    def __init__(self, message: str, retry_after_s: float = 0.0) -> None:
        """message: with the server's own words."""
        super().__init__(message[:MOST_TEXT], min(LONGEST_RETRY_AFTER_S, max(0.0, retry_after_s)))


class NoAnswer(ServerAway):
    """The time of a call was over before anything came; its connection may be one that nothing passes any more."""


class ServerBusy(ServerAway):
    """The server has more work than it takes; nothing is wrong with the batch."""


class ModelNotReady(ServerAway):
    """The server answers, but hasn't loaded the model yet, or is about to drop it."""


class BatchTooLarge(Exception):
    """The batch has more rows or bytes than the server takes. most_rows: that it takes, 0 if it doesn't say."""

    def __init__(self, message: str, most_rows: int = 0) -> None:
        """message: with the server's own words."""
        super().__init__(message[:MOST_TEXT])
        self.most_rows = most_rows


class Refused(Exception):
    """The server refuses the values of the batch, of one of its requests or of all."""


class ServerFailed(Refused):
    """The server failed on the batch: an error of its own or of the model, which the values may have caused or not.

    Treated as a refusal, since a model that raises on one request does so on its batch; but no caller is told that its
    values are wrong, and nothing is concluded for the size of batches.
    """


class Misconfigured(HeadraceError):
    """A call that can't succeed before a person acts: no such model, wrong credentials, no TLS on that port."""


class OtherSignature(Misconfigured):
    """The server's model takes or gives other tensors than the package says, as after a reload of another model."""


class BadAnswer(InferenceFailed):
    """The server's answer can't be read, or is not what was asked for."""


def in_line(text: str, most: int = MOST_TEXT) -> str:
    """Return a server's words as logs and terminals bear them: one line, no control characters, cut to `most`."""
    # A body may have a million characters; those that can't be shown are looked for in the first ones alone.
    line = " ".join(text.split())[: most * 2]
    if not line.isprintable():
        line = " ".join("".join(each if each.isprintable() else " " for each in line).split())
    return line if len(line) <= most else f"{line[: most - 1]}…"


#: An error whose message can be written anew.
Placed = TypeVar("Placed", bound=HeadraceError)


def placed(exc: Placed, where: str) -> Placed:
    """Return an error that begins with the model and its server, once. where: both of them."""
    prefix = f"{where}: "
    return exc if exc.message.startswith(prefix) else type(exc)(prefix + exc.message)


class Answer(msgspec.Struct, frozen=True):
    """The outputs of a batch. version: of the model that answered, "" if the server doesn't say."""

    outputs: Tensors
    version: str = ""


class RemoteSignature(msgspec.Struct, frozen=True, kw_only=True):
    """A model as its server describes it. Shapes are without rows. max_rows: most rows of a batch; 0 is unknown.

    row_sizes: the row counts that the server takes, if it doesn't take every one.
    """

    inputs: tuple[TensorSpec, ...]
    outputs: tuple[TensorSpec, ...]
    version: str = ""
    platform: str = ""
    max_rows: int = 0
    row_sizes: tuple[int, ...] = ()


#: Shorter ones hide nothing, and stand in many words.
_SHORTEST_SECRET: Final = 4


class Access(msgspec.Struct, frozen=True, kw_only=True):
    """Credentials and certificates of an endpoint. authorization: value of the header, such as `Bearer …`."""

    authorization: str = ""
    ca_file: str = ""
    cert_file: str = ""
    key_file: str = ""

    def hide_in(self, text: bytes) -> bytes:
        """Return a server's words without the credentials that it was sent, for some servers and proxies quote them."""
        kind, _, token = self.authorization.encode().partition(b" ")
        secrets = [token]
        if kind == b"Basic":
            user_password = base64.b64decode(token)
            secrets += [user_password, user_password.partition(b":")[2]]
        for secret in secrets:
            if len(secret) >= _SHORTEST_SECRET:
                text = text.replace(secret, b"[hidden]")
        return text


class Address(msgspec.Struct, frozen=True):
    """The place of an endpoint. path: in front of the protocol's own paths, without a slash at the end."""

    scheme: str
    host: str
    port: int
    path: str = ""

    @property
    def encrypted(self) -> bool:
        """Whether the connection is encrypted."""
        return SCHEMES[self.scheme]

    @property
    def authority(self) -> str:
        """Return host and port as they stand in a URL."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"{host}:{self.port}"

    def __str__(self) -> str:
        """Return the URI."""
        return f"{self.scheme}://{self.authority}{self.path}"


def parse_address(uri: str) -> Address:
    """Return the address of an endpoint such as `grpc://host:8500`. Raises PackageError."""
    try:
        parts = urlsplit(uri)
        port = parts.port
    except ValueError as exc:
        raise PackageError(f"the endpoint {quoted(uri)} is no address: {exc}") from None
    if parts.scheme not in SCHEMES or not parts.hostname:
        raise PackageError(
            f"the endpoint {quoted(uri)} is no address; write it as grpc://HOST:PORT or http://HOST:PORT"
        )
    if parts.username or parts.password or parts.query or parts.fragment:
        raise PackageError(
            f"the endpoint of host {parts.hostname} has more than an address; credentials belong in "
            "HEADRACE_SERVER_CREDENTIALS_<NAME>"
        )
    if port is None:
        port = 443 if parts.scheme in ("https", "grpcs") else 80
    return Address(parts.scheme, parts.hostname, port, parts.path.rstrip("/"))


class Connection(Protocol):
    """One endpoint of one model. Thread-safe; opens its channel at the first call, so after any fork."""

    def infer(self, inputs: Tensors, outputs: Sequence[str], timeout_s: float) -> Answer:
        """Run a batch. outputs: those that are wanted.

        Raises ServerAway, ServerBusy, BatchTooLarge, Refused, Misconfigured, BadAnswer.
        """
        ...

    def signature(self, timeout_s: float) -> RemoteSignature:
        """Ask for the model's tensors. Raises PackageError for a tensor without rows, and what `infer` raises."""
        ...

    def check_ready(self, timeout_s: float) -> None:
        """Raise what `infer` raises if the model doesn't answer."""
        ...

    def reopen(self) -> None:
        """Make the next call over a new connection; calls that are under way keep theirs."""
        ...

    def close(self) -> None:
        """Close the channel."""
        ...
