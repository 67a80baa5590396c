"""The Lua scripts: every file is used, every parameter is filled in, and the server accepts the text."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import redis

from headrace.queueing.keys import Keys
from headrace.queueing.lists import Lists
from headrace.queueing.lua import scripts

FOLDER = Path(scripts.__file__).parent

TEXTS = {name: text for name, text in vars(scripts).items() if isinstance(text, str) and "redis.call(" in text}

SPACES = {"plain": Keys(), "prefix": Keys("app:"), "lists": Keys("app:", Lists(":", (0, 5), highest_first=True))}

#: A word in capitals outside strings: a parameter, unless the script defines it.
WORD = re.compile(r"'[^'\n]*'|\b([A-Z][A-Z_]+)\b")


def words(text: str) -> set[str]:
    return {found[1] for found in WORD.finditer(text) if found[1]}


def defined(text: str) -> set[str]:
    return {
        name.strip() for names in re.findall(r"^local ([A-Z_, ]+) =", text, re.MULTILINE) for name in names.split(",")
    }


@pytest.mark.parametrize("space", SPACES)
@pytest.mark.parametrize("name", TEXTS)
def test_a_script_has_no_parameter_left_and_the_server_accepts_it(name: str, space: str, client: redis.Redis) -> None:
    text = scripts.rendered(TEXTS[name], SPACES[space])
    assert words(text) - defined(text) <= {"KEYS", "ARGV"}
    assert client.script_load(text)


def test_every_file_is_part_of_a_script() -> None:
    whole = "\n".join(TEXTS.values())
    for path in FOLDER.glob("*.lua"):
        lines = path.read_text("utf-8").splitlines()
        code = [line for line in lines if line.strip() and not line.lstrip().startswith("--")]
        assert "\n".join(code) in whole, path.name


def test_names_of_keys_get_the_prefix_and_names_of_lists_only_with_one() -> None:
    text = "redis.call('RPUSH', PREFIX .. list, KEY_LEASES, KEY_DOORBELL)"
    assert scripts.rendered(text, Keys()) == "redis.call('RPUSH', list, 'headrace:leases', 'headrace:bell:')"
    assert (
        scripts.rendered(text, Keys("app:"))
        == "redis.call('RPUSH', 'app:' .. list, 'app:headrace:leases', 'app:headrace:bell:')"
    )
