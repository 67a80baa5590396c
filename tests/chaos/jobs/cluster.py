"""The cluster of a run: as of the requests' runs, with jobs below its folder and, where there is one, an S3 server."""

from __future__ import annotations

import shutil
import signal
import time
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, Final

from tests.bulk.s3_server import S3Server, weed_binary
from tests.chaos.cluster import Cluster, ClusterOptions
from tests.chaos.jobs.inputs import OUTPUTS
from tests.chaos.jobs.kill_points import SWITCH

if TYPE_CHECKING:
    from obstore.store import ClientConfig, S3Config

BUCKET: Final = "chaos"

#: A dead object store is away for so long.
AWAY_S: Final = 1.0


class JobCluster(Cluster):
    """A cluster whose workers run jobs below its folder, and have the kill points of jobs."""

    def __init__(self, folder: Path, options: ClusterOptions) -> None:
        super().__init__(folder, options)
        self.s3 = S3Server(folder / "s3") if weed_binary() else None
        self._on_s3 = ThreadPoolExecutor(1, "chaos-s3")

    def _start(self) -> None:
        self._undo.callback(self._on_s3.shutdown)
        if self.s3 is not None:
            self._undo.callback(self.s3.stop, kill=True)
            self.s3.start()
            self.s3.make_bucket(BUCKET)
        super()._start()

    def environment(self) -> dict[str, str]:
        """The environment of workers and clients."""
        jobs = str(self.folder / "jobs")
        found = {
            **super().environment(),
            SWITCH: "1",
            "HEADRACE_BULK_ROOTS": jobs,
            "HEADRACE_BULK_SCRATCH": str(self.folder / "scratch"),
            "HEADRACE_BULK_TIMEOUT_S": "5",
        }
        if self.s3 is not None:
            found |= {
                **self.s3.environment(),
                OUTPUTS: f"s3://{BUCKET}",
                "HEADRACE_BULK_ROOTS": f"{jobs},s3://{BUCKET}",
            }
        return found

    def break_s3(self, way: str) -> Future[None]:
        """Kill the object store and start it again, or freeze it for a while."""
        return self._on_s3.submit(self._kill_s3 if way == "kill" else self._freeze_s3)

    def _kill_s3(self) -> None:
        assert self.s3 is not None
        self.s3.stop(kill=True)
        time.sleep(AWAY_S)
        self.s3.start()

    def _freeze_s3(self) -> None:
        assert self.s3 is not None
        assert self.s3._process is not None
        self.s3._process.send_signal(signal.SIGSTOP)
        time.sleep(2 * AWAY_S)
        self.s3._process.send_signal(signal.SIGCONT)

    def settle_s3(self) -> None:
        """Return when the object store is well."""
        self._on_s3.submit(lambda: None).result()

    def fetched(self, output: str, folder: Path) -> Path:
        """Return a local folder with what is in an output: itself, or a copy of what is in the bucket."""
        if "://" not in output:
            return Path(output)
        import obstore

        assert self.s3 is not None
        config: S3Config = {
            "access_key_id": self.s3.environment()["AWS_ACCESS_KEY_ID"],
            "secret_access_key": self.s3.environment()["AWS_SECRET_ACCESS_KEY"],
            "region": "us-east-1",
            "endpoint": self.s3.endpoint,
        }
        client_options: ClientConfig = {"allow_http": True}
        store = obstore.store.from_url(f"s3://{BUCKET}", config=config, client_options=client_options)
        name = output.rpartition("/")[2]
        shutil.rmtree(folder / name, ignore_errors=True)
        for page in obstore.list(store, prefix=name):
            for info in page:
                path = folder / info["path"]
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_bytes(bytes(obstore.get(store, info["path"]).bytes()))
        return folder / name
