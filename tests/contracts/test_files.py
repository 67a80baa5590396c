"""A file is written whole or not at all."""

from __future__ import annotations

import signal
import subprocess
import sys
from pathlib import Path

import pytest

from headrace.contracts.files import atomic_file, atomic_write


def test_a_file_is_written_and_replaced(tmp_path: Path) -> None:
    file = tmp_path / "a.json"
    atomic_write(file, b"first")
    atomic_write(file, b"second")
    assert file.read_bytes() == b"second"
    assert list(tmp_path.iterdir()) == [file]


def write_half(file: Path) -> None:
    with atomic_file(file) as written:
        written.write(b"half")
        written.write("no bytes")  # type: ignore[call-overload]


def test_a_failure_leaves_the_old_file_and_nothing_beside_it(tmp_path: Path) -> None:
    file = tmp_path / "a.json"
    atomic_write(file, b"old")
    with pytest.raises(TypeError):
        write_half(file)
    assert file.read_bytes() == b"old"
    assert list(tmp_path.iterdir()) == [file]


def test_a_killed_process_leaves_the_old_file(tmp_path: Path) -> None:
    file = tmp_path / "a.json"
    atomic_write(file, b"old")
    code = (
        "import os, signal, sys; from pathlib import Path; from headrace.contracts.files import atomic_file\n"
        "with atomic_file(Path(sys.argv[1])) as file:\n"
        "    file.write(b'half'); file.flush(); os.kill(os.getpid(), signal.SIGKILL)"
    )
    ended = subprocess.run([sys.executable, "-c", code, str(file)], check=False)
    assert ended.returncode == -signal.SIGKILL
    assert file.read_bytes() == b"old"
    atomic_write(file, b"new")
    assert list(tmp_path.iterdir()) == [file]
