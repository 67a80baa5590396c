"""A worker process in the background of a test."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from types import TracebackType
from typing import Final, Self

from pydantic import SecretStr

from headrace.cli.process.child import Child
from headrace.cli.terminal.errors import StackError
from headrace.contracts.package.manifest import ModelDirectory
from headrace.contracts.settings import Settings

_PREFIX: Final = "HEADRACE_"

#: Importing a runtime and loading a model takes a second or two, on a busy machine many times that.
_READY_S: Final = 120.0

#: What a worker needs beyond its grace to put back what it holds.
_MARGIN_S: Final = 15.0


def environment_of(settings: Settings) -> dict[str, str]:
    """Return the HEADRACE_* variables from which a process reads these settings; without those left at a default."""
    values = {name: getattr(settings, name) for name in settings.model_fields_set}
    return {
        _PREFIX + name.upper(): value.get_secret_value() if isinstance(value, SecretStr) else str(value)
        for name, value in values.items()
        if value is not None
    }


class BackgroundWorker:
    """`headrace worker` as a process of its own, which ends with the test. Use it as a context manager.

    Entering returns when every model of the folder is served, and raises StackError with the end of the log when the
    worker ends before.
    """

    def __init__(self, settings: Settings, log: Path) -> None:
        """settings: with broker, database and a folder of models. log: file for what the worker prints."""
        self._settings = settings
        self._child = Child("the worker", log)

    @property
    def log(self) -> Path:
        """The file with the worker's log."""
        return self._child.log

    @property
    def pid(self) -> int:
        """The process id of the worker. Raises StackError before it was started."""
        return self._child.pid

    def start(self) -> None:
        """Start the worker and return when it serves every model. Raises StackError."""
        from headrace.producers import Client

        names = ModelDirectory(self._settings.models).names()
        if not names:
            raise StackError(f"there is no model in {self._settings.models}; add one with `headrace models add FILE`")
        inherited = {name: value for name, value in os.environ.items() if not name.startswith(_PREFIX)}
        command = [sys.executable, "-m", "headrace.cli", "worker"]
        try:
            self._child.spawn(command, env=inherited | environment_of(self._settings))
            with Client(self._settings) as client:
                self._child.wait_until(lambda: all(map(client.is_served, names)), _READY_S)
        except BaseException:
            self._child.stop(0)
            raise

    def kill(self) -> None:
        """Kill the worker as a power cut does; its requests return to the queue when their lease ends."""
        self._child.kill()

    def stop(self) -> None:
        """Stop the worker: it finishes what runs and puts back the rest. Does nothing if it has ended."""
        self._child.stop(self._settings.grace_s + _MARGIN_S)

    def __enter__(self) -> Self:
        """Start the worker."""
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Stop the worker."""
        self.stop()
