"""What fuzzing found, one test a finding."""

from __future__ import annotations

from pathlib import Path

import pytest
from tests.fuzz import seeds

from headrace.contracts import InvalidRequest, PackageError, read_package
from headrace.contracts.message import decode_header


def test_a_header_that_is_a_string_of_lone_surrogates_is_malformed() -> None:
    with pytest.raises(InvalidRequest, match="malformed"):
        decode_header("\ud800\ud800")


@pytest.mark.parametrize("key", ["a." * 20_000 + "c", '"a" . ' * 20_000 + "c", "x = { " + "a." * 20_000 + "c = 1 }\ny"])
def test_a_dotted_key_that_the_parser_would_take_minutes_for_is_refused(tmp_path: Path, key: str) -> None:
    (tmp_path / "model.toml").write_text(seeds.MODEL_TOML.replace("a.b.c", key))
    with pytest.raises(PackageError, match="more than 1000 parts"):
        read_package(tmp_path)


def test_a_text_may_have_many_dots(tmp_path: Path) -> None:
    (tmp_path / "model.toml").write_text(seeds.MODEL_TOML.replace('"x"', '"' + "wait. " * 900 + '"'))
    assert read_package(tmp_path).name == "double"
