"""What each storage must do, tried with all of them."""

from __future__ import annotations

import uuid
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path
from threading import Barrier, Thread

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from headrace.bulk.storage.base import (
    AlreadyExists,
    InputChanged,
    InputMissing,
    ObjectInfo,
    RootRefused,
    Storage,
)
from headrace.bulk.storage.globs import expand
from headrace.bulk.storage.opening import Storages, open_storage
from headrace.bulk.storage.probing import probe
from headrace.bulk.storage.roots import Roots

NAMES = ("a/1", "a/b/2", "a0", "b c/é ü.csv", "c/100%.csv", "c/%41.csv", "d/x+y~#&=;.csv", "𝄞", "\uff5e")
HIDDEN = ("_SUCCESS", ".x", "_errors/e", "a/.y")


@pytest.fixture(params=["local", pytest.param("s3", marks=pytest.mark.server), "memory"])
def folder(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[str]:
    """A folder that doesn't exist yet."""
    if request.param == "local":
        yield f"{tmp_path}/out put"
    elif request.param == "s3":
        yield f"{request.getfixturevalue('s3_bucket')}/out put"
    else:
        yield f"memory://{uuid.uuid4().hex}/out put"


@pytest.fixture
def storage(folder: str) -> Storage:
    return open_storage(folder, Roots([folder]))


def scratch(tmp_path: Path, content: bytes) -> Path:
    path = tmp_path / "scratch" / uuid.uuid4().hex
    path.parent.mkdir(exist_ok=True)
    path.write_bytes(content)
    return path


def listed(storage: Storage, folder: str, after: str = "") -> list[ObjectInfo]:
    return [info for page in storage.pages(folder, after) for info in page]


def test_a_published_part_is_whole_and_its_scratch_file_gone(storage: Storage, folder: str, tmp_path: Path) -> None:
    part = scratch(tmp_path, b"rows" * 500_000)
    info = storage.publish(part, f"{folder}/part-1.parquet")
    assert (info.uri, info.size) == (f"{folder}/part-1.parquet", 2_000_000)
    assert not part.exists()
    assert storage.stat(info.uri) == info
    assert listed(storage, folder) == [info]
    with storage.open(info.uri, etag=info.etag) as file:
        assert file.read() == b"rows" * 500_000


def test_nothing_is_ever_replaced_by_publishing(storage: Storage, folder: str, tmp_path: Path) -> None:
    first = storage.put(f"{folder}/part", b"first")
    part = scratch(tmp_path, b"second")
    with pytest.raises(AlreadyExists, match="part' exists already"):
        storage.publish(part, first.uri)
    with pytest.raises(AlreadyExists, match="part' exists already"):
        storage.put(first.uri, b"third")
    assert part.exists()
    assert storage.open(first.uri).read() == b"first"


def test_of_many_who_publish_one_name_one_wins(storage: Storage, folder: str) -> None:
    barrier = Barrier(8)
    won: list[int] = []
    lost: list[int] = []

    def publish(number: int) -> None:
        barrier.wait()
        try:
            storage.put(f"{folder}/part", bytes([number]) * 1000)
            won.append(number)
        except AlreadyExists:
            lost.append(number)

    threads = [Thread(target=publish, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert (len(won), len(lost)) == (1, 7)
    assert storage.open(f"{folder}/part").read() == bytes(won) * 1000


def test_an_object_is_replaced_only_while_it_is_the_known_one(storage: Storage, folder: str) -> None:
    first = storage.put(f"{folder}/_SUCCESS", b"1")
    second = storage.replace(first.uri, b"22", first.etag)
    with pytest.raises(AlreadyExists, match="by somebody else"):
        storage.replace(first.uri, b"333", first.etag)
    assert storage.open(first.uri, etag=second.etag).read() == b"22"
    with pytest.raises(InputMissing):
        storage.replace(f"{folder}/none", b"1", first.etag)


def test_objects_are_listed_in_order_from_any_of_them_on(storage: Storage, folder: str) -> None:
    for name in (*NAMES, *HIDDEN):
        storage.put(f"{folder}/{name}", b"1")
    uris = [info.uri for info in listed(storage, folder)]
    assert uris == [f"{folder}/{name}" for name in sorted(NAMES, key=str.encode)]
    for number, uri in enumerate(uris):
        assert [info.uri for info in listed(storage, folder, after=uri)] == uris[number + 1 :]
    assert [info.uri for info in listed(storage, folder, after=f"{folder}/a/zzz")] == uris[2:]
    assert all(storage.stat(info.uri) == info for info in listed(storage, folder))


def test_a_glob_lists_what_it_matches(storage: Storage, folder: str) -> None:
    for name in (*NAMES, *HIDDEN):
        storage.put(f"{folder}/{name}", b"1")
    names = [info.uri for page in expand(f"{folder}/**/*.csv", storage) for info in page]
    assert names == [f"{folder}/{name}" for name in sorted(NAMES, key=str.encode) if name.endswith(".csv")]
    with pytest.raises(InputMissing, match="matches no file"):
        list(expand(f"{folder}/*.parquet", storage))
    with pytest.raises(InputMissing):
        list(expand(f"{folder}/nowhere", storage))


def test_pages_are_small(storage: Storage, folder: str) -> None:
    for number in range(1005):
        storage.put(f"{folder}/{number:04}", b"")
    assert [len(page) for page in storage.pages(folder)] == [1000, 5]


def test_an_object_is_read_at_random_and_its_bytes_are_counted(storage: Storage, folder: str) -> None:
    content = b"".join(number.to_bytes(4, "big") for number in range(250_000))
    info = storage.put(f"{folder}/numbers", content)
    with storage.open(info.uri) as file:
        for position in (999_996, 0, 4, 500_000, 131_072, 999_000):
            file.seek(position)
            assert file.read(8) == content[position : position + 8]
        file.seek(0)
        assert file.read() == content
        assert file.read(1) == b""
        assert file.seek(-4, 2) == 999_996
        assert b"".join(file) == content[999_996:]
        assert getattr(file, "bytes_read") >= len(content)  # noqa: B009


def test_parquet_is_read_by_row_group_without_reading_all(storage: Storage, folder: str, tmp_path: Path) -> None:
    table = pa.table({f"c{number}": pa.array(range(200_000), pa.int64()) for number in range(6)})
    part = scratch(tmp_path, b"")
    pq.write_table(table, part, row_group_size=20_000, compression="none", use_dictionary=False)
    size = part.stat().st_size
    info = storage.publish(part, f"{folder}/t.parquet")
    with storage.open(info.uri, etag=info.etag) as file:
        group = pq.ParquetFile(file, pre_buffer=False).read_row_group(3, columns=["c1"])
        assert group == table.select(["c1"]).slice(60_000, 20_000)
        assert getattr(file, "bytes_read") < size / 10  # noqa: B009


def test_an_object_that_is_replaced_while_it_is_read_is_noticed(storage: Storage, folder: str) -> None:
    info = storage.put(f"{folder}/rows.csv", b"1\n" * 1_000_000)
    with storage.open(info.uri) as file:
        file.read(10)
        storage.delete(info.uri)
        newer = storage.put(info.uri, b"2\n" * 1_000_000)
        if "://" in folder:
            with pytest.raises(InputChanged, match="--restart"):
                file.read(1_500_000)
    if newer.etag != info.etag:
        with pytest.raises(InputChanged):
            storage.open(info.uri, etag=info.etag)


def test_pyarrow_passes_on_that_a_file_was_replaced(storage: Storage, folder: str, tmp_path: Path) -> None:
    table = pa.table({"x": pa.array(range(400_000), pa.int64())})
    uri = f"{folder}/t.parquet"
    for version in (table, table.slice(1)):
        part = scratch(tmp_path, b"")
        pq.write_table(version, part, row_group_size=100_000, compression="none", use_dictionary=False)
        if version is table:
            etag = storage.publish(part, uri).etag
            parquet = pq.ParquetFile(storage.open(uri, etag=etag), pre_buffer=False)
        elif "://" in folder:
            storage.delete(uri)
            storage.publish(part, uri)
        else:
            Path(uri).write_bytes(part.read_bytes())
    with pytest.raises(InputChanged, match="--restart"):
        parquet.read_row_group(2)


def test_what_is_missing_is_named(storage: Storage, folder: str) -> None:
    for call in (storage.stat, storage.open):
        with pytest.raises(InputMissing, match=r"gone\.csv"):
            call(f"{folder}/gone.csv")
    storage.delete(f"{folder}/gone.csv")


def test_a_probe_leaves_nothing(storage: Storage, folder: str) -> None:
    probe(folder, storage)
    assert listed(storage, folder) == []


def test_what_is_not_below_the_roots_is_neither_read_nor_written(storage: Storage, folder: str, tmp_path: Path) -> None:
    for other in (f"{folder}x/part", folder.rpartition("/")[0], "/etc/passwd", "s3://other/part"):
        with pytest.raises(RootRefused, match="HEADRACE_BULK_ROOTS"):
            storage.stat(other)
        with pytest.raises(RootRefused):
            storage.put(other, b"1")
        with pytest.raises(RootRefused):
            storage.publish(scratch(tmp_path, b"1"), other)
        with pytest.raises(RootRefused):
            list(storage.pages(other))


def test_a_storage_is_opened_once(folder: str) -> None:
    storages = Storages(Roots([folder]))
    assert storages.of(folder) is storages.of(f"{folder}/part")


def test_names_that_differ_by_an_escape_are_different_objects(storage: Storage, folder: str) -> None:
    for name in ("%41", "A", "a b", "a%20b", "a+b"):
        storage.put(f"{folder}/{name}", name.encode())
    for name in ("%41", "A", "a b", "a%20b", "a+b"):
        assert storage.open(f"{folder}/{name}").read() == name.encode()
    uris = [info.uri for info in listed(storage, folder)]
    assert all(one < other for one, other in pairwise(uris))
