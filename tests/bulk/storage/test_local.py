"""Files on disks: what is published appears whole, once, and nothing is replaced."""

from __future__ import annotations

from pathlib import Path

import pytest

from headrace.bulk.storage.base import AlreadyExists, InputChanged, InputMissing, Storage
from headrace.bulk.storage.opening import open_storage
from headrace.bulk.storage.roots import Roots


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
