"""Files on disks: what is published appears whole, once, and nothing is replaced."""

from __future__ import annotations

import errno
import os
import stat
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from headrace.bulk.storage.base import (
    AlreadyExists,
    BadLocation,
    InputChanged,
    InputMissing,
    Storage,
    StorageUnavailable,
)
from headrace.bulk.storage.opening import open_storage
from headrace.bulk.storage.probing import probe
from headrace.bulk.storage.roots import Roots
from headrace.bulk.storage.scratch import scratch_folder
from headrace.contracts.errors import ConfigurationError


@pytest.fixture
def storage(tmp_path: Path) -> Storage:
    return open_storage(str(tmp_path), Roots([str(tmp_path)]))


def uris(storage: Storage, folder: Path, after: str = "") -> list[str]:
    return [info.uri for page in storage.pages(str(folder), after) for info in page]


def test_a_published_file_is_whole_and_its_scratch_file_gone(storage: Storage, tmp_path: Path) -> None:
    scratch = tmp_path / ".scratch"
    scratch.write_bytes(b"rows")
    info = storage.publish(scratch, f"{tmp_path}/out/part-1.parquet")
    assert Path(info.uri).read_bytes() == b"rows"
    assert not scratch.exists()
    assert storage.stat(info.uri) == info


def test_publishing_replaces_nothing(storage: Storage, tmp_path: Path) -> None:
    scratch = tmp_path / ".scratch"
    for content in (b"first", b"second"):
        scratch.write_bytes(content)
        if content == b"first":
            storage.publish(scratch, f"{tmp_path}/part")
    with pytest.raises(AlreadyExists, match="part' exists already"):
        storage.publish(scratch, f"{tmp_path}/part")
    assert (tmp_path / "part").read_bytes() == b"first"
    assert scratch.exists()


def test_a_link_that_was_made_already_counts_as_made(storage: Storage, tmp_path: Path) -> None:
    """As when the answer of a network disk was lost."""
    scratch = tmp_path / ".scratch"
    scratch.write_bytes(b"rows")
    (tmp_path / "part").hardlink_to(scratch)
    assert storage.publish(scratch, f"{tmp_path}/part").size == 4
    assert not scratch.exists()


def test_a_file_is_replaced_only_while_it_is_the_known_one(storage: Storage, tmp_path: Path) -> None:
    first = storage.put(f"{tmp_path}/_SUCCESS", b"1")
    second = storage.replace(first.uri, b"2", first.etag)
    with pytest.raises(AlreadyExists):
        storage.replace(first.uri, b"3", first.etag)
    assert storage.open(first.uri, etag=second.etag).read() == b"2"
    assert [path.name for path in tmp_path.iterdir()] == ["_SUCCESS"]


def test_a_file_that_changes_while_it_is_read_is_noticed(storage: Storage, tmp_path: Path) -> None:
    path = tmp_path / "rows.csv"
    path.write_bytes(b"1\n" * 1_000_000)
    with storage.open(str(path)) as file:
        file.read(10)
        path.write_bytes(b"2\n" * 1_000_000)
        with pytest.raises(InputChanged, match="--restart"):
            file.read(500_000)


def test_a_missing_file_is_named_with_its_host(storage: Storage, tmp_path: Path) -> None:
    with pytest.raises(InputMissing, match=r"gone.csv' on .*: No such file or directory; give a path"):
        storage.stat(f"{tmp_path}/gone.csv")
    storage.delete(f"{tmp_path}/gone.csv")


def test_files_are_listed_in_the_order_of_their_paths_from_any_of_them_on(storage: Storage, tmp_path: Path) -> None:
    for name in ("a.txt", "a/1", "a/b/2", "a-b", "a0", "é ü", "𝄞", "\uffff", "_SUCCESS", ".x", "_errors/e", "a/.y"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    listed = uris(storage, tmp_path)
    assert listed == sorted(listed, key=str.encode)
    assert [uri.removeprefix(f"{tmp_path}/") for uri in listed] == [
        "a-b", "a.txt", "a/1", "a/b/2", "a0", "é ü", "\uffff", "𝄞"
    ]  # fmt: skip
    for number, uri in enumerate(listed):
        assert uris(storage, tmp_path, after=uri) == listed[number + 1 :]


def test_a_part_is_copied_from_another_device(storage: Storage, tmp_path: Path) -> None:
    if Path("/dev/shm").stat().st_dev == tmp_path.stat().st_dev:
        pytest.skip("/dev/shm is on the same device")
    with tempfile.TemporaryDirectory(dir="/dev/shm") as folder:
        scratch = Path(folder) / "part"
        scratch.write_bytes(b"rows" * 1_000_000)
        storage.publish(scratch, f"{tmp_path}/part")
        assert not scratch.exists()
    assert (tmp_path / "part").read_bytes() == b"rows" * 1_000_000
    assert [path.name for path in tmp_path.iterdir()] == ["part"]


@pytest.fixture
def full_disk(tmp_path: Path) -> Iterator[Path]:
    """A folder on a file system of 64 kB."""
    folder = tmp_path / "small"
    folder.mkdir()
    if subprocess.run(["mount", "-t", "tmpfs", "-o", "size=64k", "none", str(folder)], check=False).returncode:
        pytest.skip("this user can't mount file systems")
    yield folder
    subprocess.run(["umount", str(folder)], check=True)


def test_a_full_disk_is_said_and_leaves_nothing(storage: Storage, full_disk: Path, tmp_path: Path) -> None:
    scratch = tmp_path / "part"
    scratch.write_bytes(b"rows" * 100_000)
    with pytest.raises(StorageUnavailable, match="No space left on device; free space there"):
        storage.publish(scratch, f"{full_disk}/part")
    assert list(full_disk.iterdir()) == []
    assert scratch.exists()
    storage.put(f"{full_disk}/small", b"1")


@pytest.mark.parametrize("blocked", ["tmpfile", "none"])
def test_file_systems_without_unnamed_files_are_served_too(
    storage: Storage, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, blocked: str
) -> None:
    opened = os.open

    def refuse(path: str, flags: int, *rest: int) -> int:
        if blocked == "tmpfile" and flags & os.O_TMPFILE == os.O_TMPFILE:
            raise OSError(errno.EOPNOTSUPP, "no unnamed files")
        return opened(path, flags, *rest)

    monkeypatch.setattr(os, "open", refuse)
    storage.put(f"{tmp_path}/a", b"1")
    with pytest.raises(AlreadyExists):
        storage.put(f"{tmp_path}/a", b"2")
    assert [(path.name, path.read_bytes()) for path in tmp_path.iterdir()] == [("a", b"1")]


def test_a_file_system_without_hard_links_is_refused_by_the_probe(
    storage: Storage, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise PermissionError(errno.EPERM, "no links")

    monkeypatch.setattr(os, "link", refuse)
    with pytest.raises(BadLocation, match="hard links"):
        probe(str(tmp_path), storage)
    assert list(tmp_path.iterdir()) == []


KILLED_WHILE_PUBLISHING = """
import os, sys
from pathlib import Path
from headrace.bulk.storage.opening import open_storage
from headrace.bulk.storage.probing import probe
from headrace.bulk.storage.roots import Roots
from headrace.bulk.storage.scratch import scratch_folder
from headrace.contracts.errors import ConfigurationError
real = os.fsync
def fsync(descriptor):
    real(descriptor)
    os.kill(os.getpid(), 9)
os.fsync = fsync
open_storage(sys.argv[1], Roots([sys.argv[1]])).put(sys.argv[1] + "/part", b"rows")
"""


def test_a_worker_that_is_killed_before_a_file_has_its_name_leaves_nothing(storage: Storage, tmp_path: Path) -> None:
    done = subprocess.run([sys.executable, "-c", KILLED_WHILE_PUBLISHING, str(tmp_path)], check=False)
    assert done.returncode == -9
    assert list(tmp_path.iterdir()) == []
    storage.put(f"{tmp_path}/part", b"rows")


def test_what_is_no_file_is_refused(storage: Storage, tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "folder").mkdir()
    with pytest.raises(BadLocation, match="no regular file"):
        storage.open(f"{tmp_path}/pipe")
    with pytest.raises(InputMissing, match="is a folder"):
        storage.open(f"{tmp_path}/folder")
    with pytest.raises(AlreadyExists):
        storage.put(f"{tmp_path}/folder", b"1")
    (tmp_path / "gone").symlink_to(tmp_path / "nowhere")
    with pytest.raises(AlreadyExists):
        storage.put(f"{tmp_path}/gone", b"1")
    with pytest.raises(BadLocation, match="File name too long"):
        storage.put(f"{tmp_path}/{'x' * 300}", b"1")
    with pytest.raises(InputMissing, match="Not a directory"):
        storage.put(f"{tmp_path}/pipe/x", b"1")
    assert uris(storage, tmp_path) == []


def test_a_file_name_that_is_no_text_is_said(storage: Storage, tmp_path: Path) -> None:
    os.close(os.open(os.fsencode(tmp_path) + b"/bad\xff.csv", os.O_CREAT))
    with pytest.raises(BadLocation, match=r"bad.*UTF-8; rename"):
        uris(storage, tmp_path)


def test_the_scratch_folder_is_this_users_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    folder = scratch_folder(None)
    assert folder.parent == tmp_path
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700
    assert scratch_folder(tmp_path / "own") == tmp_path / "own"
    folder.chmod(0o777)
    with pytest.raises(ConfigurationError, match="HEADRACE_BULK_SCRATCH"):
        scratch_folder(None)
