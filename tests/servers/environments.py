"""The environments of the real model servers: their requirements fight with each other's and with headrace's."""

from __future__ import annotations

import fcntl
import hashlib
import os
import shutil
import subprocess
import sys
import sysconfig
import time
from pathlib import Path
from typing import Final

ROOT: Final = Path(__file__).parents[2]

#: Names another folder for the environments, which hold about 4 GB.
FOLDER_VARIABLE: Final = "HEADRACE_SERVERS"

REQUIREMENTS: Final = Path(__file__).with_name("requirements")

#: Triton's Python backend is linked to the distribution's libpython, whose standard library it then needs.
DISTRIBUTION_PYTHON: Final = Path("/usr/bin/python3")

#: Packages whose requirements are already met by those of the environment, under another name.
WITHOUT_REQUIREMENTS: Final = {"tfserving": ["tensorflow-serving-api==2.21.0"]}

NAMES: Final = tuple(sorted(path.stem for path in REQUIREMENTS.glob("*.txt")))


def folder() -> Path:
    """Return the folder of all environments."""
    return Path(os.environ.get(FOLDER_VARIABLE) or ROOT / ".venv-servers").absolute()


def environment(name: str) -> Path:
    """Return the folder of a server's environment, which is there if `ensure` has made it."""
    return folder() / name


def ensure(name: str) -> Path:
    """Make the environment of a server if it isn't there in the version that is asked for; return its folder."""
    folder().mkdir(parents=True, exist_ok=True)
    with (folder() / f"{name}.lock").open("w") as lock:
        # Two runs of the tests may share the folder.
        fcntl.flock(lock, fcntl.LOCK_EX)
        return _make(name, environment(name))


def _make(name: str, target: Path) -> Path:
    stamp = target / ".made-of"
    wanted = _made_of(name)
    if stamp.exists() and stamp.read_text() == wanted:
        return target
    started = time.monotonic()
    print(f"Making {target}", flush=True)
    shutil.rmtree(target, ignore_errors=True)
    subprocess.run([_python_for(name), "-m", "venv", target], check=True)
    install: list[str | Path] = [
        target / "bin" / "python",
        "-m",
        "pip",
        "install",
        "-qq",
        "--disable-pip-version-check",
    ]
    install += ["--no-compile", "--prefer-binary", "--constraint", ROOT / "constraints.txt"]
    subprocess.run([*install, "--requirement", REQUIREMENTS / f"{name}.txt"], check=True)
    if name in WITHOUT_REQUIREMENTS:
        subprocess.run([*install, "--no-deps", *WITHOUT_REQUIREMENTS[name]], check=True)
    stamp.write_text(wanted)
    print(f"Made {target} in {time.monotonic() - started:.0f} s", flush=True)
    return target


def _python_for(name: str) -> str:
    if name == "triton" and DISTRIBUTION_PYTHON.exists():
        return str(DISTRIBUTION_PYTHON)
    # The interpreter itself: virtual environments have many names for it.
    return os.path.realpath(sys.executable)


def _made_of(name: str) -> str:
    text = f"{(REQUIREMENTS / f'{name}.txt').read_text()} {WITHOUT_REQUIREMENTS.get(name)}"
    return f"{hashlib.sha256(text.encode()).hexdigest()} {_python_for(name)} {sysconfig.get_python_version()}\n"


if __name__ == "__main__":
    for each in sys.argv[1:] or NAMES:
        ensure(each)
