"""The processes that ask for jobs: started again when they are killed."""

from __future__ import annotations

import subprocess
import sys
import threading
from contextlib import suppress
from typing import Final

from tests.chaos.cluster import ROOT, Cluster

#: A client whose job does not end within this time has lost it.
PATIENCE_S: Final = 240.0


class JobClient:
    """One client after the other, which goes on with the jobs of the one before."""

    def __init__(self, cluster: Cluster, index: int, clients: int, seed: int) -> None:
        self._cluster = cluster
        words = (index, clients, seed, cluster.folder / "jobs")
        self._command = [sys.executable, "-m", "tests.chaos.jobs.client", *map(str, words)]
        self._log = (cluster.folder / f"client-{index}.log").open("ab")
        self._lock = threading.Lock()
        self._enough = False
        self._process = self._started()

    def _started(self) -> subprocess.Popen[bytes]:
        return subprocess.Popen(
            self._command,
            env=self._cluster.environment(),
            cwd=ROOT,
            stdin=subprocess.PIPE,
            stderr=self._log,
            process_group=0,
        )

    def kill(self) -> bool:
        """Kill the client; another one takes its place."""
        with self._lock:
            if self._enough:
                return False
            self._process.kill()
            self._process.wait()
            self._process = self._started()
        return True

    def finish(self) -> str:
        """Let it end with the job that it waits for; return what is wrong with its end."""
        with self._lock:
            self._enough = True
            process = self._process
        assert process.stdin is not None
        with suppress(OSError):
            process.stdin.write(b"enough\n")
            process.stdin.flush()
        try:
            code = process.wait(PATIENCE_S)
        except subprocess.TimeoutExpired:
            return "a client still waits for its job"
        return f"a client ended with code {code}" if code else ""

    def close(self) -> None:
        self._process.kill()
        self._process.wait()
        if self._process.stdin is not None:
            with suppress(OSError):
                self._process.stdin.close()
        self._log.close()
