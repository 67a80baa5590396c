"""The options of `headrace models add --server`."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Final, Literal

import msgspec
import typer

from headrace.contracts.package.server import MOST_IN_FLIGHT, Server

#: Under this heading `--help` lists them.
_SERVERS: Final = "Models on a server"


@dataclass(frozen=True)
class ServerOptions:
    """A model on model servers, in place of a file."""

    server: Annotated[
        list[str] | None,
        typer.Option(
            metavar="URI",
            rich_help_panel=_SERVERS,
            show_default=False,
            help="Address of a model server: grpc://, grpcs://, http:// or https://HOST:PORT; repeatable.",
        ),
    ] = None
    remote_name: Annotated[
        str, typer.Option(rich_help_panel=_SERVERS, show_default=False, help="Name of the model on the server.")
    ] = ""
    version_of_server: Annotated[
        str,
        typer.Option(
            rich_help_panel=_SERVERS,
            show_default="the server's choice",
            help="Version of the model on the server.",
        ),
    ] = ""
    label: Annotated[
        str,
        typer.Option(rich_help_panel=_SERVERS, show_default=False, help="Label of TensorFlow Serving for a version."),
    ] = ""
    signature: Annotated[
        str,
        typer.Option(
            rich_help_panel=_SERVERS, show_default="serving_default", help="Signature of a SavedModel on the server."
        ),
    ] = ""
    kind: Annotated[
        Literal["tfserving", "oip"] | None,
        typer.Option(
            rich_help_panel=_SERVERS,
            show_default="by asking",
            help="Protocol: of TensorFlow Serving, or the Open Inference Protocol of all others.",
        ),
    ] = None
    credentials: Annotated[
        str,
        typer.Option(
            metavar="NAME",
            rich_help_panel=_SERVERS,
            show_default=False,
            help="NAME of HEADRACE_SERVER_CREDENTIALS_NAME, which holds credentials.",
        ),
    ] = ""
    max_in_flight: Annotated[
        int,
        typer.Option(
            min=0,
            max=MOST_IN_FLIGHT,
            rich_help_panel=_SERVERS,
            show_default="as many as pay",
            help="Batches at a time on each server.",
        ),
    ] = 0

    def described(self, file: Path | None) -> Server | None:
        """Return the server, None where there is a model file.

        Raises typer.BadParameter where there are both or neither, or options that need the other; PackageError for
        what no server can have.
        """
        if file is not None and self.server:
            raise typer.BadParameter("give a FILE or --server, not both", param_hint="--server")
        if file is not None:
            self._refuse_without_server()
            return None
        if not self.server:
            raise typer.BadParameter("give a model FILE, or --server and --remote-name", param_hint="FILE")
        if not self.remote_name:
            raise typer.BadParameter("name the model as the server calls it", param_hint="--remote-name")
        if self.kind == "oip" and (self.label or self.signature):
            option = "--label" if self.label else "--signature"
            raise typer.BadParameter("only TensorFlow Serving has these", param_hint=option)
        if self.version_of_server and self.label:
            raise typer.BadParameter("a label names a version; leave one of them out", param_hint="--label")
        server = Server(
            endpoints=tuple(uri.rstrip("/") for uri in self.server),
            model=self.remote_name,
            version=self.version_of_server,
            label=self.label,
            max_in_flight=self.max_in_flight,
            credentials=self.credentials,
        )
        return msgspec.structs.replace(server, signature_name=self.signature) if self.signature else server

    def _refuse_without_server(self) -> None:
        given = {
            "--remote-name": self.remote_name,
            "--version-of-server": self.version_of_server,
            "--label": self.label,
            "--signature": self.signature,
            "--kind": self.kind,
            "--credentials": self.credentials,
            "--max-in-flight": self.max_in_flight,
        }
        for option, value in given.items():
            if value:
                raise typer.BadParameter("it needs --server, and no FILE", param_hint=option)
