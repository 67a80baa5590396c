"""Certificates made by openssl for servers of tests on 127.0.0.1."""

from __future__ import annotations

import ssl
import subprocess
from dataclasses import dataclass
from pathlib import Path

#: What `openssl ca`, which alone writes certificates of the past, must be told.
CONFIG = """
[ca]
default_ca = tests
[tests]
database = {folder}/index.txt
serial = {folder}/serial
new_certs_dir = {folder}
default_md = sha256
policy = any
x509_extensions = server
unique_subject = no
[any]
commonName = supplied
[server]
subjectAltName = IP:127.0.0.1,DNS:localhost
basicConstraints = critical,CA:TRUE
"""


@dataclass(frozen=True)
class Certificate:
    """A certificate that signs itself, so that it is its own authority, and its key."""

    cert: Path
    key: Path

    def server_context(self, clients: Certificate | None = None) -> ssl.SSLContext:
        """Return the context of a server. clients: the only certificate with which clients are let in."""
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(self.cert, self.key)
        if clients:
            context.load_verify_locations(clients.cert)
            context.verify_mode = ssl.CERT_REQUIRED
        return context


def certificate(folder: Path, starts: str = "20200101000000Z", ends: str = "20991231235959Z") -> Certificate:
    """Write a certificate of 127.0.0.1 and localhost into an empty folder."""
    folder.mkdir(exist_ok=True)
    made = Certificate(folder / "cert.pem", folder / "key.pem")
    (folder / "ca.cnf").write_text(CONFIG.format(folder=folder))
    (folder / "index.txt").touch()
    (folder / "serial").write_text("01")
    request = folder / "request.pem"
    key = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-keyout", str(made.key)]
    _openssl("req", "-new", *key, "-subj", "/CN=127.0.0.1", "-out", str(request))
    days = ["-startdate", starts, "-enddate", ends]
    files = ["-config", str(folder / "ca.cnf"), "-keyfile", str(made.key), "-in", str(request), "-out", str(made.cert)]
    _openssl("ca", "-selfsign", "-batch", "-notext", *days, *files)
    return made


def expired(folder: Path) -> Certificate:
    """Write a certificate that ended years ago."""
    return certificate(folder, ends="20210101000000Z")


def _openssl(*arguments: str) -> None:
    subprocess.run(["openssl", *arguments], check=True, capture_output=True)
