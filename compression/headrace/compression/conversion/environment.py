"""The environment of its own in which litert-torch lives: its requirements fight with those of everything else."""

from __future__ import annotations

import os
import secrets
import shutil
import subprocess
import sys
from collections import deque
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path
from typing import Final

from headrace.compression.errors import CompressionError, NotApplicable
from headrace.compression.networks.loading import need_torch

#: Names the folder that holds environments of converters, when it isn't `~/.cache/headrace`.
FOLDER_VARIABLE: Final = "HEADRACE_CONVERTERS"

LITERT_TORCH: Final = "0.10.0"

#: What litert-torch was tested with; of these it asks for any version. torch joins them, in the version used here.
_LITERT_PINS: Final = (
    f"litert-torch=={LITERT_TORCH}",
    "ai-edge-litert==2.3.0",
    "ai-edge-quantizer==0.10.0",
    "litert-converter==0.5.0",
    "jax==0.10.2",
    "jaxlib==0.10.2",
    "torchao==0.18.0",
)

#: pip's lines that tell how far it got; others are remarks.
_TOLD: Final = ("Collecting", "Downloading", "Installing")

#: Lines of pip's output that an error quotes.
_QUOTED_LINES: Final = 3


def converters_folder() -> Path:
    """Give the folder of converters' environments: HEADRACE_CONVERTERS, or `~/.cache/headrace`."""
    named = os.environ.get(FOLDER_VARIABLE)
    return Path(named) if named else Path.home() / ".cache" / "headrace"


def set_up_litert(folder: Path, report: Callable[[str], None]) -> None:
    """Make the environment of litert-torch below `folder`, whole or not at all; one that is there stays.

    About 2 GB, more with a CUDA build of torch: pip takes it from where it takes all else. report: is told each step in
    one line. Raises CompressionError with pip's words when it fails.
    """
    need_torch("conversion to LiteRT")
    target = _environment(folder)
    if _python(target).exists():
        report(f"{target} is there already")
        return
    partial = folder / f".partial-{secrets.token_hex(8)}"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        report(f"Making {target}")
        _run([sys.executable, "-m", "venv", str(partial)], report)
        pip = [str(_python(partial)), "-m", "pip", "install", "--disable-pip-version-check", "--progress-bar", "off"]
        _run([*pip, f"torch=={_torch_version()}", *_LITERT_PINS], report)
        report("Trying it out")
        _run([str(_python(partial)), "-I", "-c", "import litert_torch"], report)
        try:
            partial.rename(target)
        except OSError:
            # Another set-up was faster; its environment is as good.
            if not _python(target).exists():
                raise
    except OSError as exc:
        raise CompressionError(f"{exc.filename or folder} can't be written: {exc.strerror}") from exc
    finally:
        shutil.rmtree(partial, ignore_errors=True)
    report(f"{target} is ready")


def litert_python(folder: Path | None = None) -> Path:
    """Give the Python of litert-torch's environment. Raises NotApplicable naming the command that makes it."""
    target = _environment(folder or converters_folder())
    python = _python(target)
    if not python.exists():
        raise NotApplicable(
            f"conversion to LiteRT needs litert-torch in an environment of its own, and {target} isn't there; "
            "run `headrace compress setup litert` (2 GB)"
        )
    return python


def _environment(folder: Path) -> Path:
    """Name the environment: a network crosses to it only between equal versions of torch."""
    python = f"py{sys.version_info.major}.{sys.version_info.minor}"
    return folder.absolute() / f"litert-{LITERT_TORCH}-torch-{_torch_version()}-{python}"


def _torch_version() -> str:
    """Give torch's version without that of its build (`+cpu`), which other places may not have."""
    return version("torch").partition("+")[0]


def _python(environment: Path) -> Path:
    return environment / "bin" / "python"


def _run(command: list[str], report: Callable[[str], None]) -> None:
    last: deque[str] = deque(maxlen=_QUOTED_LINES)
    with subprocess.Popen(
        command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    ) as process:
        assert process.stdout is not None
        try:
            for line in map(str.strip, process.stdout):
                if line:
                    last.append(line)
                if line.startswith(_TOLD):
                    report(line[:200])
        except BaseException:
            process.kill()
            raise
    if process.returncode:
        raise CompressionError(
            f"`{' '.join(command[1:4])}` failed while the environment of litert-torch was made: {' / '.join(last)}; "
            "nothing was kept of it"
        )
