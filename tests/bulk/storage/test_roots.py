"""Workers touch nothing outside of HEADRACE_BULK_ROOTS."""

from __future__ import annotations

import socket
from pathlib import Path

import pytest

from headrace.bulk.storage.base import RootRefused
from headrace.bulk.storage.opening import open_storage
from headrace.bulk.storage.roots import Roots, parse_roots
from headrace.contracts.errors import ConfigurationError


@pytest.mark.parametrize(
    ("text", "roots"),
    [
        ("", ()),
        (" , ", ()),
        ("/data", ("/data",)),
        ("/data/,s3://b/x/ , /srv/a b", ("/data", "s3://b/x", "/srv/a b")),
        ("/data:/srv:s3://b/x:gs://c", ("/data", "/srv", "s3://b/x", "gs://c")),
        ("s3://b/x:/data", ("s3://b/x", "/data")),
        ("https://host:8080/x", ("https://host:8080/x",)),
        ("/with:colon,/data", ("/with:colon", "/data")),
        ("/", ("/",)),
    ],
)
def test_roots_are_separated_by_commas_or_colons(text: str, roots: tuple[str, ...]) -> None:
    assert parse_roots(text) == roots


@pytest.mark.parametrize("text", ["data", "/data,rows", "s3://key:hunter2@b", "s3://"])
def test_a_wrong_root_is_said_without_its_secrets(text: str) -> None:
    with pytest.raises(ConfigurationError, match="HEADRACE_BULK_ROOTS has") as caught:
        parse_roots(text)
    assert "hunter2" not in str(caught.value)


def test_a_location_below_a_root_is_allowed_with_its_links_resolved(tmp_path: Path) -> None:
    (tmp_path / "data").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "data")
    roots = Roots([f"{tmp_path}/link", "s3://b/x"])
    assert roots.check(f"{tmp_path}/link/new/rows.csv") == f"{tmp_path}/data/new/rows.csv"
    assert roots.check(f"{tmp_path}/data") == f"{tmp_path}/data"
    assert roots.check("s3a://b/x/y/") == "s3://b/x/y"
    assert roots.check("s3://b/x") == "s3://b/x"


def test_what_only_looks_as_if_it_were_below_a_root_is_refused(tmp_path: Path) -> None:
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "out").symlink_to("/etc")
    roots = Roots([f"{tmp_path}/data", "s3://b/x"])
    for location in (
        f"{tmp_path}/data2", f"{tmp_path}/data/../other", f"{tmp_path}/data/out/passwd", str(tmp_path), "/",
        "s3://b/xy", "s3://b", "s3://c/x", "gs://b/x", "memory://b/x",
    ):  # fmt: skip
        with pytest.raises(RootRefused):
            roots.check(location)


def test_a_refusal_names_the_location_the_host_and_the_remedy() -> None:
    with pytest.raises(RootRefused) as caught:
        Roots(["/data"]).check("/secret/rows.csv")
    assert str(caught.value) == (
        f"/secret/rows.csv is not below HEADRACE_BULK_ROOTS of the worker on {socket.gethostname()} (/data); add it "
        "there and start the worker again, or choose another location"
    )


def test_without_roots_only_the_local_stack_may_use_local_files() -> None:
    assert Roots(local_stack=True).check("/tmp") == str(Path("/tmp").resolve())
    for roots, location in ((Roots(), "/tmp"), (Roots(local_stack=True), "s3://b/x")):
        with pytest.raises(RootRefused, match=r"not set|local files only"):
            roots.check(location)
    with pytest.raises(RootRefused):
        Roots(["/data"], local_stack=True).check("/tmp")


def test_nothing_is_written_through_a_link_that_leads_out(tmp_path: Path) -> None:
    inside, outside = tmp_path / "in", tmp_path / "out"
    inside.mkdir()
    outside.mkdir()
    (inside / "link").symlink_to(outside)
    (inside / "file").symlink_to(outside / "file")
    storage = open_storage(str(inside), Roots([str(inside)]))
    with pytest.raises(RootRefused):
        storage.put(f"{inside}/link/x", b"1")
    with pytest.raises(RootRefused):
        storage.delete(f"{inside}/link/x")
    storage.delete(f"{inside}/file")
    assert list(outside.iterdir()) == []
    assert not (inside / "file").is_symlink()
