"""Handle of a model in a child process, whose crash or hang leaves this process unharmed."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from multiprocessing import Pipe
from multiprocessing.connection import Connection
from pathlib import Path
from types import TracebackType
from typing import Final, Self

from headrace.compression.benchmarking.protocol import (
    Answer,
    Block,
    Command,
    Failed,
    Load,
    Loaded,
    RunBlock,
    decode_answer,
    encode,
)
from headrace.compression.errors import CompressionError
from headrace.contracts import ModelPackage

#: A child that closed its pipe ends within this time, or is killed.
_ENDING_S: Final = 10.0

#: How much of the end of a child's output is looked at for its last line.
_TAIL_BYTES: Final = 4096


class NotEnoughMemory(CompressionError):
    """A model needs more memory for this number of rows than there is; measure it with fewer."""


@dataclass(frozen=True)
class Setup:
    """Options of the processes that run models to be measured.

    answer_s: longest wait for an answer of the child; loading and single runs may take long.
    """

    device: str = "cpu"
    threads: int = 1
    answer_s: float = 300.0


class BenchmarkHandle:
    """A package in a process of its own. A context manager: the process ends with the block."""

    def __init__(self, package: ModelPackage, inputs: Path, setup: Setup) -> None:
        """inputs: file of rows, as `encode_tensors` writes them."""
        self.package = package
        self._inputs = inputs
        self._setup = setup
        self._name = f"{package.name} {package.version} ({package.manifest.runtime})"

    def __enter__(self) -> Self:
        """Check the package and start the process; it loads nothing yet. Raises PackageError for a damaged file."""
        self.package.verify()
        self._output = tempfile.TemporaryFile()
        self._pipe, theirs = Pipe()
        with theirs:
            self._process = self._start(theirs)
        return self

    def _start(self, pipe: Connection) -> subprocess.Popen[bytes]:
        module = "headrace.compression.benchmarking.worker"
        return subprocess.Popen(
            [sys.executable, "-m", module, str(pipe.fileno()), str(os.getpid())],
            stdin=subprocess.DEVNULL,
            stdout=self._output,
            stderr=subprocess.STDOUT,
            pass_fds=[pipe.fileno()],
            # Ctrl-C in a terminal reaches only us; the end of the pipe, or ours, then ends the child.
            start_new_session=True,
        )

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        """End the process: it has nothing to lose."""
        self._pipe.close()
        self._process.kill()
        self._process.wait()
        self._output.close()

    def load(self) -> Loaded:
        """Load the model. Raises CompressionError saying why that fails."""
        command = Load(
            folder=str(self.package.folder.absolute()),
            inputs=str(self._inputs),
            device=self._setup.device,
            threads=self._setup.threads,
        )
        answer = self._ask(command, "it was loaded")
        assert isinstance(answer, Loaded)
        return answer

    def run(self, rows: int, seconds: float) -> Block:
        """Run batches of `rows` rows for `seconds`, at least one. Raises CompressionError, NotEnoughMemory."""
        answer = self._ask(RunBlock(rows, seconds), f"it ran batches of {rows} row{'s' if rows > 1 else ''}")
        assert isinstance(answer, Block)
        return answer

    def _ask(self, command: Command, doing: str) -> Answer:
        try:
            self._pipe.send_bytes(encode(command))
            if not self._pipe.poll(self._setup.answer_s):
                raise CompressionError(
                    f"{self._name} can't be measured: nothing was heard for {self._setup.answer_s:g} s while {doing}; "
                    "measure it with fewer rows, or with another runtime"
                )
            answer: Answer = decode_answer(self._pipe.recv_bytes())
        except (EOFError, ConnectionError):
            raise self._exit_error(doing) from None
        if isinstance(answer, Failed):
            error = NotEnoughMemory if answer.memory else CompressionError
            raise error(f"{self._name} can't be measured: it failed while {doing}: {answer.cause}")
        return answer

    def _exit_error(self, doing: str) -> CompressionError:
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._process.wait(_ENDING_S)
        code = self._process.returncode
        if code is not None and code < 0:
            how = f"crashed with {_signal_name(-code)}"
            hint = "; often there is not enough memory then" if -code == signal.SIGKILL else ""
        else:
            how, hint = "ended its process", ""
        line = self._last_line()
        return CompressionError(
            f"{self._name} {how} while {doing}{hint}; so its runtime can't run it on this machine"
            + (f" (its last words: {line})" if line else "")
        )

    def _last_line(self) -> str:
        size = self._output.seek(0, os.SEEK_END)
        self._output.seek(max(0, size - _TAIL_BYTES))
        lines = self._output.read().decode("utf-8", "replace").split("\n")
        return next((line.strip() for line in reversed(lines) if line.strip()), "")


def _signal_name(number: int) -> str:
    try:
        return signal.Signals(number).name
    except ValueError:
        return f"signal {number}"
