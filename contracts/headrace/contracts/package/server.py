"""`[server]` of a package: the model server that computes its batches, in place of a model file."""

from __future__ import annotations

import re
from typing import Final, Literal

import msgspec

from headrace.contracts.errors import PackageError, quoted

#: Names of credentials are parts of the names of environment variables.
_CREDENTIALS: Final = re.compile(r"[A-Z0-9_]{1,64}")

#: More batches in flight than this wait in the server, and no longer in the queue, where others could take them.
MOST_IN_FLIGHT: Final = 64


class Server(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A model on a model server. The `runtime` of the package is the server's protocol: "tfserving" or "oip".

    endpoints: addresses of servers that all have the model, such as `grpc://host:8500`, or `http://`, `grpcs://`,
    `https://`. model: its name there. version, label: which of its versions answers; the server decides if both are
    empty. signature_name: of a SavedModel. flavor: a server whose messages differ. max_in_flight: batches at the same
    time on one endpoint; 0: found out. credentials: NAME of the setting HEADRACE_SERVER_CREDENTIALS_NAME.
    allow_new_signature: whether requests are checked against the tensors that the server's model has after a reload;
    else they fail. nan: whether outputs may hold NaN and infinity.
    """

    endpoints: tuple[str, ...]
    model: str
    version: str = ""
    label: str = ""
    signature_name: str = "serving_default"
    flavor: Literal["", "torchserve", "torchserve-rest", "torchserve-json"] = ""
    max_in_flight: int = 0
    credentials: str = ""
    allow_new_signature: bool = False
    nan: Literal["allow", "refuse"] = "allow"

    def __post_init__(self) -> None:
        """Refuse what no server can have."""
        if not self.endpoints or not all(self.endpoints):
            raise PackageError('[server] needs endpoints, such as ["grpc://host:8500"]')
        if len(set(self.endpoints)) != len(self.endpoints):
            raise PackageError("[server] names one of its endpoints twice")
        if not self.model or not self.model.isprintable():
            raise PackageError(f"[server] model {quoted(self.model)} must be the name of a model on the server")
        if self.version and self.label:
            raise PackageError("[server] has a version and a label; a label names a version, so leave one out")
        if not 0 <= self.max_in_flight <= MOST_IN_FLIGHT:
            raise PackageError(f"[server] max_in_flight must be 1 to {MOST_IN_FLIGHT}, or 0 to find it out")
        if self.credentials and not _CREDENTIALS.fullmatch(self.credentials):
            raise PackageError(
                "[server] credentials must be the NAME in HEADRACE_SERVER_CREDENTIALS_NAME, of capitals, digits and "
                "'_'; they never stand here themselves"
            )

    @property
    def identity(self) -> tuple[str, ...]:
        """All that decides which model answers; not where it is, nor how it is reached."""
        return (self.model, self.version, self.label, self.signature_name, self.flavor, self.nan)
