"""An S3-compatible server and its faults: what was acknowledged is there, and silence is noticed."""

from __future__ import annotations

import hashlib
import threading
import time
from pathlib import Path

import pytest
from tests.bulk.s3_server import READER, S3Server

from headrace.bulk.storage.base import (
    AccessDenied,
    AlreadyExists,
    BadLocation,
    InputMissing,
    Storage,
    StorageUnavailable,
)
from headrace.bulk.storage.globs import expand
from headrace.bulk.storage.objects.bucket import LARGEST_PART
from headrace.bulk.storage.opening import open_storage
from headrace.bulk.storage.probing import probe
from headrace.bulk.storage.roots import Roots

SILENCE_S = 2.0


def opened(uri: str, timeout_s: float = 60.0) -> Storage:
    return open_storage(uri, Roots([uri]), timeout_s)


def test_of_eight_conditional_writes_at_once_one_wins_and_its_content_stays(s3_bucket: str) -> None:
    """The first thing to know of a server: parts are published by these."""
    storage = opened(s3_bucket)
    for number in range(3):
        uri = f"{s3_bucket}/part-{number}"
        won, refused = race(storage, uri, [bytes([each]) * 300_000 for each in range(8)])
        assert (len(won), refused) == (1, 7)
        assert storage.open(uri).read() == won[0]


def test_of_eight_replacements_at_once_one_wins(s3_bucket: str) -> None:
    storage = opened(s3_bucket)
    uri = f"{s3_bucket}/_SUCCESS"
    etag = storage.put(uri, b"0").etag
    barrier = threading.Barrier(8)
    won: list[int] = []

    def replace(number: int) -> None:
        barrier.wait()
        try:
            storage.replace(uri, f"by {number}".encode(), etag)
            won.append(number)
        except AlreadyExists:
            return

    run([threading.Thread(target=replace, args=(number,)) for number in range(8)])
    assert [storage.open(uri).read()] == [f"by {number}".encode() for number in won]


def test_a_killed_server_loses_nothing_that_it_acknowledged(s3_server: S3Server, s3_bucket: str) -> None:
    storage = opened(s3_bucket, 120.0)
    acknowledged: dict[str, str] = {}
    killed = threading.Event()

    def write(worker: int) -> None:
        number = 0
        while number < 10 or (not killed.is_set() and number < 10_000):
            content = f"{worker}-{number}".encode() * 10_000
            info = storage.put(f"{s3_bucket}/{worker}/{number}", content)
            acknowledged[info.uri] = hashlib.sha256(content).hexdigest()
            number += 1

    threads = [threading.Thread(target=write, args=(worker,)) for worker in range(4)]
    for thread in threads:
        thread.start()
    for _ in range(2):
        time.sleep(0.5)
        s3_server.restart(kill=True)
    killed.set()
    for thread in threads:
        thread.join()
    listed = {info.uri for page in storage.pages(s3_bucket) for info in page}
    assert set(acknowledged) == listed
    for uri, digest in acknowledged.items():
        assert hashlib.sha256(storage.open(uri).read()).hexdigest() == digest


def test_a_listing_goes_on_after_the_server_was_away(s3_server: S3Server, s3_bucket: str) -> None:
    storage = opened(s3_bucket)
    for number in range(2100):
        storage.put(f"{s3_bucket}/{number:05}", b"x")
    pages = storage.pages(s3_bucket)
    seen = [info.uri for info in next(pages)]
    s3_server.restart(kill=True)
    seen += [info.uri for page in pages for info in page]
    assert seen == [f"{s3_bucket}/{number:05}" for number in range(2100)]


def test_a_glob_passes_over_folders_in_which_it_matches_nothing(s3_bucket: str) -> None:
    storage = opened(s3_bucket)
    for number in range(1200):
        storage.put(f"{s3_bucket}/in/deep/er/{number:05}", b"x")
    for name in ("a.csv", "e.csv", "deep/x.csv", "f/y.csv"):
        storage.put(f"{s3_bucket}/in/{name}", b"x")
    found = [info.uri.rpartition("/in/")[2] for page in expand(f"{s3_bucket}/in/*.csv", storage) for info in page]
    assert found == ["a.csv", "e.csv"]
    found = [info.uri.rpartition("/in/")[2] for page in expand(f"{s3_bucket}/in/*/*.csv", storage) for info in page]
    assert found == ["deep/x.csv", "f/y.csv"]


def test_a_silent_server_is_noticed_in_time_and_found_again(s3_server: S3Server, s3_bucket: str) -> None:
    storage = opened(s3_bucket, SILENCE_S)
    info = storage.put(f"{s3_bucket}/rows", b"rows" * 500_000)
    with storage.open(info.uri) as file:
        assert file.read(4) == b"rows"
        with s3_server.frozen():
            for call in (
                lambda: storage.stat(info.uri),
                lambda: storage.put(f"{s3_bucket}/new", b"1"),
                lambda: next(storage.pages(s3_bucket)),
                lambda: file.seek(1_000_000) and file.read(4),
            ):
                with pytest.raises(StorageUnavailable, match="no answer in time"):
                    call()
        file.seek(1_000_000)
        assert file.read() == b"rows" * 250_000
    # The write that got no answer may have happened, once.
    assert [each.uri for page in storage.pages(s3_bucket) for each in page] in (
        [f"{s3_bucket}/new", info.uri],
        [info.uri],
    )


def test_a_write_whose_answer_was_lost_is_not_taken_for_another_ones(
    s3_server: S3Server, s3_bucket: str, tmp_path: Path
) -> None:
    storage = opened(s3_bucket, 12.0)
    part = tmp_path / "part"
    part.write_bytes(b"rows" * 1000)
    s3_server.freeze()
    # Longer than one attempt waits, shorter than all.
    thaw = threading.Timer(7.0, s3_server.thaw)
    thaw.start()
    try:
        info = storage.publish(part, f"{s3_bucket}/part")
    finally:
        thaw.join()
    assert (info.size, part.exists()) == (4000, False)


@pytest.mark.parametrize(
    ("key", "secret", "said"),
    [("nobody", "wrong", "InvalidAccessKeyId"), ("bulk-test-key", "wrong", "SignatureDoesNotMatch")],
)
def test_wrong_credentials_are_said_in_a_line(
    s3_bucket: str, monkeypatch: pytest.MonkeyPatch, key: str, secret: str, said: str
) -> None:
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", key)
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", secret)
    with pytest.raises(AccessDenied, match=rf"{said}.*AWS_\*"):
        probe(s3_bucket, opened(s3_bucket))
    with pytest.raises(AccessDenied):
        opened(s3_bucket).stat(f"{s3_bucket}/x")


def test_a_bucket_that_may_only_be_read_is_told_by_the_probe(s3_bucket: str, monkeypatch: pytest.MonkeyPatch) -> None:
    opened(s3_bucket).put(f"{s3_bucket}/rows", b"1")
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", READER[0])
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", READER[1])
    storage = opened(s3_bucket)
    assert storage.open(f"{s3_bucket}/rows").read() == b"1"
    with pytest.raises(AccessDenied, match="AccessDenied"):
        probe(s3_bucket, storage)
    with pytest.raises(AccessDenied):
        storage.delete(f"{s3_bucket}/rows")


def test_a_missing_bucket_is_named(s3_environment: dict[str, str]) -> None:
    storage = opened("s3://no-such-bucket")
    with pytest.raises(InputMissing, match=r"no-such-bucket.*NoSuchBucket"):
        probe("s3://no-such-bucket/out", storage)
    with pytest.raises(InputMissing, match="NoSuchBucket"):
        list(storage.pages("s3://no-such-bucket/in"))


def test_a_server_that_is_not_there_is_unavailable(
    s3_environment: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:1")
    with pytest.raises(StorageUnavailable, match="connection refused"):
        opened("s3://bucket", 2.0).stat("s3://bucket/x")
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://nowhere.invalid")
    with pytest.raises(StorageUnavailable, match="name of the server"):
        opened("s3://bucket", 2.0).stat("s3://bucket/x")


def test_a_part_that_is_too_large_for_one_request_is_refused(s3_bucket: str, tmp_path: Path) -> None:
    part = tmp_path / "part"
    with part.open("wb") as file:
        file.truncate(LARGEST_PART + 1)
    with pytest.raises(BadLocation, match=r"256 MiB is too large.*smaller shards"):
        opened(s3_bucket).publish(part, f"{s3_bucket}/part")
    assert part.exists()


def test_a_large_part_is_published_whole(s3_bucket: str, tmp_path: Path) -> None:
    part = tmp_path / "part"
    content = bytes(range(256)) * (40 << 12)
    part.write_bytes(content)
    storage = opened(s3_bucket)
    info = storage.publish(part, f"{s3_bucket}/part")
    with storage.open(info.uri, etag=info.etag) as file:
        assert hashlib.sha256(file.read()).digest() == hashlib.sha256(content).digest()


def race(storage: Storage, uri: str, contents: list[bytes]) -> tuple[list[bytes], int]:
    """Write contents to one name at once; return those that were acknowledged and the number of those refused."""
    barrier = threading.Barrier(len(contents))
    won: list[bytes] = []
    refused: list[bytes] = []

    def put(content: bytes) -> None:
        barrier.wait()
        try:
            storage.put(uri, content)
            won.append(content)
        except AlreadyExists:
            refused.append(content)

    run([threading.Thread(target=put, args=(content,)) for content in contents])
    return won, len(refused)


def run(threads: list[threading.Thread]) -> None:
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
